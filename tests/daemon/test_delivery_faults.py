"""What happens behind a live capture: delivery is killed, the clock steps, the vault is away."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.cli.support import KEYS, Place
from tests.daemon.disks import call, fill, small
from tests.daemon.running import (
    PATIENCE,
    Daemon,
    comes_back,
    prepare,
    qemu_io,
    replicating,
    restored_is_the_source,
    running,
)
from tests.waiting import until

KILLS = 20


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as folder:
        yield Place(Path(folder))


@contextmanager
def a_guest(place: Place) -> Iterator[None]:
    """fio writes and verifies as long as this lasts, and must not see an error."""
    words = [
        "fio", "--name=x", "--ioengine=nbd", "--uri=nbd+unix:///root?socket=root.sock",
        "--rw=randwrite", "--bsrange=4k-64k", "--iodepth=4", "--size=12M", "--rate=4M",
        "--loops=1000", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
        "--fsync=20", "--thread",  # one process: else its job outlives it, and writes on
    ]  # fmt: skip
    process = subprocess.Popen(
        words, cwd=place.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield
        assert process.poll() is None, process.communicate()
        out = _ended(process)
        assert "err= 0" in out, out
    finally:
        process.kill()
        process.communicate()


def _ended(process: subprocess.Popen[str]) -> str:
    """It ends after what it has begun. Sometimes it does not heed the first signal."""
    for _ in range(int(PATIENCE)):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=1)[0]
    raise AssertionError("fio goes on")


def _kill(daemon: Daemon, after: float) -> None:
    """Delivery, wherever it is by then; the reload may just have put another in its place."""

    def kill() -> bool:
        pid = daemon.child("delivery_main")
        select.select([], [], [], after)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    until("a delivery to kill", kill, pause=0)


def test_delivery_killed_twenty_times_under_load(place: Place) -> None:
    prepare(place.root)
    dice = random.Random(20)
    with running(place) as daemon:
        with a_guest(place):
            for _ in range(KILLS):
                _kill(daemon, dice.uniform(0, 1.2))
                daemon.heard("delivery: ended (-9)")
                daemon.process.send_signal(signal.SIGHUP)  # start it again at once
                daemon.heard("reload: done")
        comes_back(place)
        replicating(place)
        assert "not all was shipped" not in daemon.end()
    restored_is_the_source(place)


def test_the_wall_clock_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all processes of the daemon: an hour back, a day forward, and back again."""
    prepare(place.root)
    clock = place / "clock"
    clock.write_text("+0")
    for name, value in {
        "LD_PRELOAD": "/usr/$LIB/faketime/libfaketimeMT.so.1",
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        "NO_FAKE_STAT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    made: list[dict[str, Any]] = []
    with running(place) as daemon:
        monkeypatch.undo()
        replicating(place)
        for number, step in enumerate(("+0", "-1h", "+1d", "+0"), 1):
            clock.write_text(step)
            qemu_io(place, f"write -P {number} 0 64k", "flush")
            made.append(place.json("mark", "c.yaml", "web1", "--wait", "30"))
        daemon.end()
    stamps = [point["stamp"] for point in made]
    assert stamps == sorted(set(stamps))
    day = 86_400_000_000
    assert stamps[2] - stamps[1] > day * 0.9, "the clock was not stepped"
    listed = place.json("points", "web1", *KEYS)["points"]
    seqs = [point["seq"] for point in listed]
    assert seqs == sorted(seqs, reverse=True)
    assert [p["stamp"] for p in listed] == sorted({p["stamp"] for p in listed}, reverse=True)
    for number, point in enumerate(made, 1):
        moment = datetime.fromtimestamp(point["stamp"] / 1e6, UTC).isoformat()
        place.json("restore", "web1", *KEYS, "--at", moment, "--to", f"back{number}")
        block = (place / f"back{number}/web1-root.img").read_bytes()[:4096]
        assert block == bytes([number]) * 4096


def test_a_vault_that_comes_and_goes(place: Place) -> None:
    """Full, read-only, another folder in its place: said, and healed."""
    with small(place / "vault", "8m"):
        prepare(place.root)
        with running(place) as daemon:
            replicating(place)

            def again(number: int) -> None:
                daemon.process.send_signal(signal.SIGHUP)  # it would look by itself in a while
                daemon.heard("reload: done")
                comes_back(place)
                replicating(place)
                restored_is_the_source(place, f"back{number}")

            def away(number: int, says: str) -> None:
                qemu_io(place, f"write -P {number} {number}M 300k", "flush")
                daemon.heard(says)
                (row,) = place.json("status", "c.yaml", "--folder")["machines"]
                assert row["live"]["state"] == "replicating"
                assert "nothing is shipped now" in row["last_run"]

            fill(place / "vault/much")
            away(1, "No space left on device")
            (place / "vault/much").unlink()
            again(1)
            call("mount", "--bind", str(place / "vault"), str(place / "vault"))
            call("mount", "-o", "remount,ro,bind", str(place / "vault"))
            away(2, "Read-only file system")
            call("umount", "-l", str(place / "vault"))
            again(2)
            with small(place / "vault", "1m"):
                away(3, "hint: ")
            again(3)
            daemon.end()
