"""The disk under the state folder is full, dead, read-only or hangs: guests go on, and all heals.

Journal and activity log fail together then. Until they can be written again what guests write is
tracked in memory, and a file beside the source says so to the next life.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import Place
from tests.daemon.disks import ext4, fill, frozen, fuse, small
from tests.daemon.running import (
    PATIENCE,
    Daemon,
    comes_back,
    died,
    prepare,
    qemu_io,
    replicating,
    restored_is_the_source,
    running,
)

WITNESS = ".root.img.backstay-unlogged"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as made:
        yield Path(made)


def tracking(place: Place) -> str:
    """The machine is not harmed, and says what it cannot do."""
    # In a process of its own: what reads from a disk that hangs cannot be ended.
    out, _ = place.start("status", "c.yaml", "--folder", "--json").communicate(timeout=PATIENCE)
    (row,) = json.loads(out)["machines"]
    assert row["live"]["state"] == "tracking", row
    assert row["last_run"].startswith("tracking (")
    return str(row["live"]["reason"])


def heals(place: Place, daemon: Daemon) -> None:
    comes_back(place)
    replicating(place)
    assert not (place / WITNESS).exists()
    restored_is_the_source(place)
    daemon.end()


def test_it_is_full(folder: Path) -> None:
    with small(folder / "state", "16m"):
        place = prepare(folder)
        with running(place) as daemon:
            replicating(place)
            fill(place / "state/much")
            qemu_io(place, "write -P 1 0 4M", "flush", "write -P 2 5M 700", "flush")
            assert "No space left on device" in tracking(place)
            (place / "state/much").unlink()
            daemon.process.send_signal(signal.SIGHUP)  # delivery would look again in a minute
            heals(place, daemon)


def test_it_cannot_be_written(folder: Path) -> None:
    """And can again: the kernel refuses for a while."""
    with ext4(folder / "disk", folder / "state"):
        place = prepare(folder)
        with running(place) as daemon:
            replicating(place)
            journal = place / "state/intake/web1/journal"
            with frozen(*journal.iterdir(), journal, place / "state/intake/web1/activity"):
                qemu_io(place, "write -P 1 0 4M", "flush", "write -P 2 5M 700", "flush")
                assert "Operation not permitted" in tracking(place)
                qemu_io(place, "write -P 3 9M 1M", "flush", "write -z 0 1M", "flush")
                assert (place / WITNESS).exists()
            heals(place, daemon)


def test_it_hangs(folder: Path) -> None:
    with fuse("memory", "128M") as disk, ext4(disk.image, folder / "state"):
        place = prepare(folder)
        with running(place) as daemon:
            replicating(place)
            disk.freeze()
            try:
                qemu_io(place, "write -P 1 0 4M", "flush", "write -P 2 5M 700", "flush")
                qemu_io(place, "write -P 3 9M 1M", "flush", "write -z 0 1M", "flush")
                assert "does not answer" in tracking(place)
                assert (place / WITNESS).exists()
            finally:
                disk.thaw()
            heals(place, daemon)


def test_it_dies_and_everything_with_it(folder: Path) -> None:
    """What guests wrote after the disk had died is in no log: the next life compares everything."""
    with ext4(folder / "disk", folder / "state") as disk:
        place = prepare(folder)
        with running(place) as daemon:
            replicating(place)
            disk.shut_down()
            qemu_io(place, "write -P 1 0 4M", "flush", "write -P 2 9M 700", "flush")
            assert "Input/output error" in tracking(place)
            killed = [daemon.process.pid, daemon.intake, daemon.child("delivery_main")]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
                died(pid)
        disk.again()
        with running(place, ready=None) as again:
            again.heard("the activity log missed writes")
            assert not (place / WITNESS).exists()
            heals(place, again)
