"""Everything comes back on a machine that has nothing but the vault and the key."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.bare import Bare, as_another, hand_over, install
from tests.cli.support import DISKS, KEYS, Shipped, same


@pytest.fixture(scope="module")
def program() -> Iterator[Bare]:
    """Installed where every user can come; its home is filled by the test."""
    with TemporaryDirectory(prefix="bs-bare-") as folder:
        yield install(Path(folder))


def test_vault_and_key_are_enough(program: Bare, shipped: Shipped) -> None:
    shutil.copytree(shipped / "vault", program.home / "vault")
    shutil.copyfile(shipped / "op.key", program.home / "op.key")
    hand_over(program.home)
    assert sorted(path.name for path in program.home.iterdir()) == ["op.key", "vault"]

    said = program.fine("backstay", "rescue", *KEYS)
    (command,) = [line.split("next: ")[1] for line in said.splitlines() if "next: " in line]
    (machine,) = json.loads(program.fine("backstay", "rescue", *KEYS, "--json"))["machines"]
    assert machine["next"] == command
    assert machine["point"]["seq"] == shipped.points[1]

    program.fine(command)  # as it was printed
    for disk in DISKS:
        restored = program.home / "restored-web1" / f"web1-{disk}.img"
        assert same(restored, shipped / f"second-{disk}.img")

    listed = json.loads(program.fine("backstay", "points", "web1", *KEYS, "--json"))
    assert [point["seq"] for point in listed["points"]] == list(reversed(shipped.points))
    assert json.loads(program.fine("backstay", "verify", "web1", *KEYS, "--json"))["whole"]
    first = listed["points"][-1]["time"]
    program.fine("backstay", "restore", "web1", *KEYS, "--at", first, "--to", "first")
    assert same(program.home / "first" / "web1-root.img", shipped / "first-root.img")
    _export(program, shipped)


def _export(program: Bare, shipped: Shipped) -> None:
    process = subprocess.Popen(
        [
            *as_another(),
            f"{program.program}/bin/backstay",
            *("export", "web1", *KEYS, "--listen", "unix:./s", "--writable", "overlay", "--json"),
        ],
        cwd=program.home,
        env={"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "}\n":
            assert process.poll() is None
        uri = "nbd+unix:///root?socket=s"
        program.fine("qemu-io", "-f", "raw", "-c", "write -P 9 64k 4k", uri)
        copy: Path = program.home / "copy.img"
        program.fine("nbdcopy", uri, "copy.img")
        expected = bytearray((shipped / "second-root.img").read_bytes())
        expected[64 << 10 : 68 << 10] = b"\x09" * 4096
        assert copy.read_bytes() == expected
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.communicate()
