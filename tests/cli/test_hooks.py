"""Snapshot hooks: in order, with what they need to know, thawed whatever happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from pipeline.config.model import Disk, Snapshot
from pipeline.hooks import held_still
from stages.errors import SourceBusy, SourceIO
from tests.cli.support import KEYS, Shipped

NOTE = 'echo "{word} $BACKSTAY_MACHINE $BACKSTAY_DISK $BACKSTAY_PATH" >> {log}'


def script(folder: Path, name: str, *lines: str) -> str:
    path = folder / name
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return str(path)


def hooked(
    folder: Path, name: str, *, pre: str = "", post: str = "", timeout: int = 60
) -> tuple[str, Disk]:
    """A disk whose hooks write down that they were called, and then do something else."""
    log = folder / "log"
    snapshot = Snapshot.model_construct(
        pre=script(folder, f"{name}-pre", NOTE.format(word="pre", log=log), pre),
        post=script(folder, f"{name}-post", NOTE.format(word="post", log=log), post),
        timeout=timeout,
    )
    return name, Disk(path=f"/disks/{name}", capture="scan", snapshot=snapshot)


def called(folder: Path) -> list[str]:
    """The calls so far: which hook of which disk."""
    lines = (folder / "log").read_text().splitlines()
    for line in lines:
        word, machine, disk, path = line.split()
        assert (machine, path) == ("web1", f"/disks/{disk}")
        assert word in ("pre", "post")
    return [f"{line.split()[0]} {line.split()[2]}" for line in lines]


async def test_pre_in_order_post_in_the_opposite_one(tmp_path: Path) -> None:
    disks = [hooked(tmp_path, "a"), hooked(tmp_path, "b")]
    async with held_still("web1", disks) as still:
        assert still
        assert called(tmp_path) == ["pre a", "pre b"]
    assert called(tmp_path) == ["pre a", "pre b", "post b", "post a"]


async def test_a_disk_without_hooks_is_not_held_still(tmp_path: Path) -> None:
    disks = [hooked(tmp_path, "a"), ("b", Disk(path="/disks/b", capture="scan"))]
    async with held_still("web1", disks) as still:
        assert not still
    assert called(tmp_path) == ["pre a", "post a"]


async def test_post_runs_when_the_scan_fails(tmp_path: Path) -> None:
    with pytest.raises(SourceIO):
        async with held_still("web1", [hooked(tmp_path, "a")]):
            raise SourceIO("unreadable")
    assert called(tmp_path) == ["pre a", "post a"]


async def test_post_runs_when_the_scan_is_cancelled(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with held_still("web1", [hooked(tmp_path, "a")]):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert called(tmp_path) == ["pre a", "post a"]


async def test_a_pre_that_fails_stops_the_rest_and_is_thawed_itself(tmp_path: Path) -> None:
    disks = [hooked(tmp_path, "a", pre="echo no lock; exit 3"), hooked(tmp_path, "b")]
    with pytest.raises(SourceBusy, match="exit code 3: no lock") as caught:
        async with held_still("web1", disks):
            raise AssertionError("not reached")
    assert called(tmp_path) == ["pre a", "post a"]
    assert caught.value.subject.startswith("web1/a: ")


async def test_a_post_that_fails_is_an_error_and_the_others_run(tmp_path: Path) -> None:
    disks = [hooked(tmp_path, "a"), hooked(tmp_path, "b", post="exit 1")]
    with pytest.raises(SourceBusy, match="exit code 1") as caught:
        async with held_still("web1", disks):
            pass
    assert called(tmp_path) == ["pre a", "pre b", "post b", "post a"]
    assert "may still be held" in caught.value.hint


async def test_what_failed_first_is_not_hidden(tmp_path: Path) -> None:
    disks = [hooked(tmp_path, "a", post="echo stuck; exit 1")]
    with pytest.raises(SourceIO, match="unreadable") as caught:
        async with held_still("web1", disks):
            raise SourceIO("unreadable", hint="look at the disk")
    assert caught.value.hint.startswith("look at the disk; ")
    assert "stuck" in caught.value.hint
    assert "may still be held" in caught.value.hint


async def test_a_hook_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
    pre = f"exec 3> {tmp_path}/fifo; sleep 1000 & echo ready >&3; wait"

    async def hang() -> None:
        with pytest.raises(SourceBusy, match="longer than 60 s"):
            async with held_still("web1", [hooked(tmp_path, "a", pre=pre)]):
                raise AssertionError("not reached")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang)
        await trio.lowlevel.wait_readable(reader)
        mock_clock.jump(61)
    os.close(reader)
    # Nobody has it open any more, so without waiting it cannot be opened for writing.
    with pytest.raises(OSError, match="No such device"):
        os.open(tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    assert called(tmp_path) == ["pre a", "post a"]


async def test_a_hook_may_leave_something_running(tmp_path: Path) -> None:
    disks = [hooked(tmp_path, "a", pre=f"sleep 1000 & echo $! > {tmp_path}/pid")]
    async with held_still("web1", disks) as still:
        assert still
    end(tmp_path / "pid")


def end(note: Path) -> None:
    os.kill(int(note.read_text()), 9)


async def test_only_the_last_of_what_it_prints_is_kept(tmp_path: Path) -> None:
    noisy = "head -c 20000000 /dev/zero | tr '\\0' x; echo the end; exit 1"
    with pytest.raises(SourceBusy) as caught:
        async with held_still("web1", [hooked(tmp_path, "a", pre=noisy)]):
            raise AssertionError("not reached")
    assert "the end" in caught.value.message
    assert len(caught.value.message) < 3000


async def test_a_hook_that_is_not_there(tmp_path: Path) -> None:
    snapshot = Snapshot.model_construct(
        pre=f"{tmp_path}/none", post=script(tmp_path, "post"), timeout=60
    )
    disk = Disk(path="/disks/a", capture="scan", snapshot=snapshot)
    with pytest.raises(SourceBusy, match="cannot be run: No such file"):
        async with held_still("web1", [("a", disk)]):
            raise AssertionError("not reached")


def test_a_run_with_hooks(shipped: Shipped, tmp_path: Path) -> None:
    """The commands of the configuration, around a real run; a failing one costs no old point."""
    with shipped.copied(tmp_path / "w") as place:
        log = place / "log"
        script(place.root, "freeze", NOTE.format(word="pre", log=log))
        script(place.root, "thaw", NOTE.format(word="post", log=log))
        config = place / "c.yaml"
        text = config.read_text()
        held = "snapshot: {pre: ./freeze, post: ./thaw}, capture: scan"
        config.write_text(text.replace("capture: scan", held))
        (run,) = place.json("run", "c.yaml", "--once")["machines"]
        assert run["consistent"]
        words = [line.split()[:3] for line in log.read_text().splitlines()]
        assert words == [
            ["pre", "web1", "root"],
            ["pre", "web1", "data"],
            ["post", "web1", "data"],
            ["post", "web1", "root"],
        ]
        script(place.root, "freeze", "exit 7")
        said = place.backstay("run", "c.yaml", "--once", "--json")
        assert said.code == 7
        assert "exit code 7" in said.err
        newest = place.json("points", "web1", *KEYS)["points"][0]["seq"]
        assert newest == run["seq"]
