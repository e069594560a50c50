"""Restoring to files: what comes back, and that the same command goes on where one stopped."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from stages.errors import NoSpace, TargetError
from stages.model import BLOCK
from stages.ports import Buffer, OpenFile
from stages.recover.pointmap import PointMap
from stages.recover.restore import Restore
from stages.system import SystemFiles, this_machine
from tests.ports.watched import Tripwire, WatchedFiles, unsynced
from tests.recover.past import CountingStore, noise, past
from tests.recover.targets import (
    ROOT,
    TWO,
    Stopped,
    disk,
    is_restored,
    is_whole,
    named,
    restore,
    stop_after,
    targets,
    two_disks,
)

T = TypeVar("T")
KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4095, 4096, 4097, MIB + 1, 3 * MIB - 512])
@pytest.mark.parametrize("window", [17, 100_000])
async def test_any_size(tmp_path: Path, size: int, window: int) -> None:
    async with past(disk(size)) as made:
        blocks = -(-size // BLOCK)
        last = noise(blocks - 1, 1)[blocks - 1] if blocks else b""
        kept = last[: size - (blocks - 1) * BLOCK].ljust(BLOCK, b"\0")
        await made.write((ROOT, noise(0, blocks // 3) | ({blocks - 1: kept} if blocks else {})))
        to = targets(made, tmp_path / "new" / "folder")
        report = await restore(made, to, window=window)
        assert is_restored(made, to)
        (restored,) = report.disks
        content = size and size - max(0, blocks - 1 - blocks // 3) * BLOCK
        assert (restored.size, restored.content, restored.resumed_at) == (size, content, 0)


async def test_holes_stay_holes(tmp_path: Path) -> None:
    async with past(disk(64 * MIB)) as made:
        await made.write((ROOT, noise(1000, 50) | noise(9000, 3)))
        await made.write(zero={ROOT: ((1010, 5),)})
        to = targets(made, tmp_path)
        await restore(made, to)
        found = SystemFiles().stat(to[0].path)
        assert found is not None
        assert found.size == 64 * MIB
        assert 48 * BLOCK <= found.allocated <= 48 * BLOCK + 64 * KIB
        assert is_restored(made, to)


async def test_every_point(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        await made.describe(TWO[0])
        await made.write(zero={ROOT: ((0, 300),)})
        for seq, moment in made.moments.items():
            made.disks = moment.disks
            to = targets(made, tmp_path / str(seq))
            await restore(made, to, seq=seq)
            assert is_restored(made, to, seq=seq)


async def test_progress_is_told_to_the_byte(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        told: list[int] = []
        await restore(made, targets(made, tmp_path), window=100, advance=told.append)
        assert sum(told) == sum(each.size for each in TWO)
        assert all(step >= 0 for step in told)


@pytest.mark.parametrize("stop", range(1, 6))
async def test_it_goes_on_after_the_last_whole_window(tmp_path: Path, stop: int) -> None:
    store = CountingStore()
    async with past(*TWO, store=store) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        with pytest.raises(Stopped):
            await restore(made, to, window=100, advance=stop_after(stop))
        assert not named(to)
        told: list[int] = []
        report = await restore(made, to, window=100, advance=told.append)
        assert is_restored(made, to)
        assert sum(told) == sum(each.size for each in TWO)
        resumed = [restored.resumed_at for restored in report.disks]
        # The last window may not have been synced yet when the restore was stopped.
        assert stop < 3 or resumed[0] >= BLOCK * 100
        assert resumed[0] <= 100 * BLOCK * stop


async def test_what_was_done_is_not_fetched_again(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(disk(400 * BLOCK), store=store) as made:
        for first in range(0, 400, 50):
            await made.write((ROOT, noise(first, 40)))
        to = targets(made, tmp_path)

        def outage(key: str) -> None:
            if key.endswith("/000000000006"):
                raise Stopped("away")

        store.before = outage
        with pytest.raises(Stopped):
            await restore(made, to, window=50)
        store.before = lambda _: None
        store.gets.clear()
        report = await restore(made, to, window=50)
        assert is_restored(made, to)
        fetched = {key[-1] for key, _, _ in store.gets if "/data/" in key}
        done = report.disks[0].resumed_at // BLOCK // 50
        assert fetched == {str(at) for at in range(done, 8)}
        assert done >= 5


async def test_progress_never_runs_ahead_of_what_is_durable(tmp_path: Path) -> None:
    """With real threads: syncs go on beside the writes of the next window."""
    events: list[tuple[str, int]] = []

    def record(name: str, path: str, call: Callable[[], T]) -> T:
        if name == "fdatasync" and path.endswith(".partial"):
            events.append(("sync", 0))
        done = call()
        if name == "rename" and path.endswith(".progress"):
            events.append(("done", json.loads(Path(path).read_bytes())["done"]))
        return done

    class Writes(SystemFiles):
        def open_write(
            self,
            path: str,
            *,
            create: bool = False,
            new: bool = False,
            exclusive: bool = False,
            direct: bool = False,
        ) -> OpenFile:
            inner = super().open_write(path, create=create, new=new)
            pwrite = inner.pwrite

            def noted(offset: int, data: Buffer) -> None:
                pwrite(offset, data)
                events.append(("write", offset // BLOCK))

            inner.pwrite = noted  # type: ignore[method-assign]
            return inner

    async with past(disk(2000 * BLOCK)) as made:
        await made.write((ROOT, noise(0, 2000)))
        ports = replace(this_machine(), files=WatchedFiles(record, Writes()))
        point = await PointMap.build(await made.group(), SystemFiles(), 1)
        work = Restore(point, ports, window_blocks=100)
        to = targets(made, tmp_path)
        await work.run(to)
        work.close()
        assert is_restored(made, to)
    kept = [value for what, value in events if what == "done"]
    assert kept == sorted(kept)
    assert kept[-1] == 2000
    for at, (what, done) in enumerate(events):
        if what == "done" and done:
            sync = max(before for before in range(at) if events[before][0] == "sync")
            written = {block for what, block in events[:sync] if what == "write"}
            later = {block for what, block in events[sync:] if what == "write"}
            assert not any(block < done for block in later - written)


@pytest.mark.parametrize("late", [False, True])
async def test_whatever_file_operation_fails_the_same_command_completes(
    tmp_path: Path, late: bool
) -> None:
    """Every operation in turn; at each point a name, if it is there, is that of a whole disk."""
    async with past(*TWO) as made:
        await two_disks(made)
        at = 0
        while True:
            to = targets(made, tmp_path / f"{at}")
            tripwire = Tripwire(at=at, code=errno.EIO, late=late)
            files = WatchedFiles(tripwire, WatchedFiles(unsynced))
            try:
                await restore(made, to, window=100, files=files)
            except TargetError as error:
                assert error.subject
            if not tripwire.tripped:
                break
            assert all(is_whole(made, target) for target in named(to))
            if len(named(to)) < len(to):
                await restore(made, to, window=100, files=WatchedFiles(unsynced))
                assert is_restored(made, to), tripwire.tripped
            at += 1
        assert at > 40


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk(tmp_path: Path, code: int) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        full = Tripwire(at=25, code=code)
        with pytest.raises(NoSpace) as caught:
            await restore(made, to, window=100, files=WatchedFiles(full))
        assert caught.value.recoverable
        assert "same command" in caught.value.hint
        assert not named(to)
        await restore(made, to, window=100)
        assert is_restored(made, to)
