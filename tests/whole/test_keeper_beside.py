"""Real processes on a vault of files, and a keeper that deletes while they are at work.

A daemon in the middle of a resync, a restore and an export, each stopped half way, and four runs of
the keeper without any grace between: floors, moved frames, deletions. Then all of them go on, and
end well.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.cli.exporter import exporting
from tests.cli.support import KEYS, MIB, Place, put, same
from tests.daemon.running import (
    PATIENCE,
    Daemon,
    ask,
    comes_back,
    prepare,
    restored_is_the_source,
    running,
)
from tests.waiting import until
from tests.whole.test_operators_day import WEB_DISK, guest, point

RUN = ("keeper", "run", *KEYS, "--retention", "all=0s", "--grace", "0s")
PIECE = 2 * MIB  # that cannot be compressed: enough for a checkpoint each time


@pytest.fixture
def place() -> Iterator[Place]:
    with TemporaryDirectory(prefix="bs-") as folder:  # short: sockets have short paths
        yield prepare(Path(folder))


def a_history(place: Place, points: int) -> list[int]:
    """Points of a disk that is overwritten, a copy of the disk beside each."""
    seqs = []
    for at in range(points):
        (place / "fresh").write_bytes(os.urandom(PIECE))
        guest(place, WEB_DISK, f"write -s fresh {64 + 32 * at}k {PIECE}", "flush")
        seqs.append(point(place))
        (place / f"{seqs[-1]}.img").write_bytes((place / "root.img").read_bytes())
    return seqs


def _has_begun(process: subprocess.Popen[str], folder: Path) -> bool:
    """It has a file, or it is already over."""
    return process.poll() is not None or any(folder.glob("*"))


@contextmanager
def half_restored(place: Place, seq: int) -> Iterator[subprocess.Popen[str]]:
    """A restore that has begun to write and is stopped there."""
    for at in range(20):
        folder = place / f"out-{at}"
        words = ("--at", f"#{seq}", "--to", folder.name)
        process = place.start("restore", "web1", *KEYS, *words)
        try:
            until("the first file of a restore", partial(_has_begun, process, folder), pause=0.001)
            process.send_signal(signal.SIGSTOP)
            if process.poll() is None and not (folder / "web1-root.img").exists():
                yield process
                process.send_signal(signal.SIGCONT)
                _, err = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, err
                assert same(folder / "web1-root.img", place / f"{seq}.img")
                return
        finally:
            process.kill()
            process.communicate()
    raise AssertionError("a restore is faster than it can be stopped")


@contextmanager
def half_compared(place: Place) -> Iterator[Daemon]:
    """A daemon that compares its whole disk and finds something, and whose delivery is stopped: it
    cannot end meanwhile."""
    for _ in range(20):
        put(place / "root.img", 9 * MIB, os.urandom(2 * MIB))  # while nobody looked
        with running(place) as daemon:
            delivery = daemon.child("delivery_main")
            os.kill(delivery, signal.SIGSTOP)
            halfway = not replicates(place)
            try:
                if halfway:
                    yield daemon
                    assert not replicates(place)
            finally:
                os.kill(delivery, signal.SIGCONT)
            comes_back(place)
            if halfway:
                point(place)
            daemon.end()
            if halfway:
                return
    raise AssertionError("a comparison is faster than it can be stopped")


def replicates(place: Place) -> bool:
    return bool(ask(place / "state", "status")["machines"]["web1"]["state"] == "replicating")


def kept(place: Place) -> list[dict[str, Any]]:
    """Four runs of the keeper, one after the other."""
    vault = str(place.json("vault", "check", *KEYS[1:])["vault"])
    found = []
    for _ in range(4):
        said = place.json(*RUN, "--confirm", vault[:8])
        (group,) = said["groups"]
        assert not said["problems"] + group["problems"], said
        found.append(group)
    return found


@pytest.mark.long
def test_a_resync_a_restore_and_an_export_in_progress(place: Place) -> None:
    with running(place) as daemon:
        seqs = a_history(place, 6)
        daemon.end()
    exported, restored = seqs[1], seqs[2]
    place.json("hold", "web1", f"#{restored}", *KEYS)  # an export holds its point by itself
    with (
        exporting(place, place.root, "--at", f"#{exported}") as exporter,
        half_restored(place, restored),
        half_compared(place),
    ):
        place.call("qemu-io", "-r", "-f", "raw", "-c", "read 0 1M", exporter.uri())
        runs = kept(place)
        assert sum(run["deleted_objects"] for run in runs) > 0
        assert sum(run["moved_bytes"] for run in runs) > 0
        assert set(runs[-1]["needed"]) >= {str(exported), str(restored)}
        left = {each["seq"] for each in place.json("points", "web1", *KEYS)["points"]}
        # A log begins anew at a checkpoint: one or two points before the newest may stay for that.
        assert left & set(seqs[:-2]) == {exported, restored}
        place.call("nbdcopy", exporter.uri(), "exported.img")
        assert same(place / "exported.img", place / f"{exported}.img")
        exporter.end()
    assert kept(place)[-1]["tail"] > seqs[-1]
    restored_is_the_source(place)
    assert place.json("verify", "web1", *KEYS)["whole"]
