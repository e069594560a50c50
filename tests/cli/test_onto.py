"""``restore --onto``: the way back to disks that hold another version."""

from __future__ import annotations

import re
import shutil
import signal
import time
from pathlib import Path

from tests.cli.support import DISKS, KEYS, Shipped, same


def _onto(folder: Path, *more: str) -> tuple[str, ...]:
    places = [word for disk in DISKS for word in ("--onto", f"{disk}={folder}/{disk}.img")]
    return ("restore", "web1", *KEYS, *places, *more)


def test_old_disks_are_brought_to_the_point(shipped: Shipped, tmp_path: Path) -> None:
    for disk in DISKS:
        shutil.copy(shipped / f"first-{disk}.img", tmp_path / f"{disk}.img")
    said = shipped.backstay(*_onto(tmp_path))
    assert said.code == 2  # not confirmed
    assert same(tmp_path / "root.img", shipped / "first-root.img")
    planned = shipped.json(*_onto(tmp_path), "--dry-run")
    assert all(disk["onto"] for disk in planned["disks"])
    sizes = {d: (tmp_path / f"{d}.img").stat().st_size for d in DISKS}
    wanted = {d: (shipped / f"second-{d}.img").stat().st_size for d in DISKS}
    resize = ("--resize",) if sizes != wanted else ()
    done = shipped.json(*_onto(tmp_path), *resize, "--confirm", "web1")
    for disk in done["disks"]:
        assert same(Path(disk["path"]), shipped / f"second-{disk['disk']}.img")
        assert disk["compared"] == disk["size"]
        assert disk["written"] < disk["size"] // 2
    said = shipped.backstay(*_onto(tmp_path), "--confirm", "web1")
    assert len(re.findall(r"compared .*, wrote 0 B that differed", said.out)) == len(DISKS), said


def test_what_is_missing_is_made(shipped: Shipped, tmp_path: Path) -> None:
    shutil.copy(shipped / "second-root.img", tmp_path / "root.img")
    done = shipped.json(*_onto(tmp_path), "--confirm", "web1")
    assert {disk["disk"]: bool(disk["compared"]) for disk in done["disks"]}["root"]
    for disk in DISKS:
        assert same(tmp_path / f"{disk}.img", shipped / f"second-{disk}.img")
    assert {path.name for path in tmp_path.iterdir()} == {f"{disk}.img" for disk in DISKS}


def test_it_has_to_be_asked_for_rightly(shipped: Shipped, tmp_path: Path) -> None:
    for words in (
        ("restore", "web1", *KEYS, "--resize", "--to", "x"),
        ("restore", "web1", *KEYS, "--onto", "root"),
        ("restore", "web1", *KEYS, "--onto", "root=a", "--device", "root=b"),
    ):
        assert shipped.backstay(*words).code == 2


def test_killed_at_any_moment_the_same_command_finishes(shipped: Shipped, tmp_path: Path) -> None:
    for disk in DISKS:
        (tmp_path / f"{disk}.img").write_bytes(b"\x11" * 3_000_000)
    words = _onto(tmp_path, "--resize", "--confirm", "web1")
    for _ in range(4):
        running = shipped.start(*words)
        deadline = time.monotonic() + 60
        before = _heads(tmp_path)
        while running.poll() is None and _heads(tmp_path) == before and time.monotonic() < deadline:
            pass  # until the first bytes of a disk have changed, then at once
        running.send_signal(signal.SIGKILL)
        running.communicate()
    done = shipped.json(*words)
    for disk in done["disks"]:
        assert same(Path(disk["path"]), shipped / f"second-{disk['disk']}.img")


def _heads(folder: Path) -> list[tuple[int, int]]:
    found = [path.stat() for path in sorted(folder.glob("*.img"))]
    return [(each.st_mtime_ns, each.st_size) for each in found]
