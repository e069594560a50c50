"""Both examiners behind one suite; then what only processes can do: die."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.capture import pool
from stages.capture.examiner import Examined, Examiner, Examiners, InlineExaminers
from stages.capture.pool import ProcessExaminer, ProcessExaminers
from stages.digests import DigestKeys
from stages.errors import SourceIO, SourceShrunk, WorkerLost
from stages.model import BLOCK, CHUNK, CHUNK_BLOCKS, U64, UNKNOWN, ZERO, StreamItem
from stages.ports import OpenFile
from stages.stage import crew
from stages.system import SystemFile, ThreadOffload
from stages.system_workers import InheritedFile
from tests.capture.support import disk_at, machine, scan
from tests.capture.vault_model import GROUP_KEY, VaultModel, block_digest, chunk_digest

KEYS = DigestKeys.derive(GROUP_KEY)
BATCH = 4 * CHUNK
SLOTS = 3
PROCESSES = ProcessExaminers(workers=2, slots=SLOTS, batch=BATCH)
ONE_PROCESS = ProcessExaminers(workers=1, slots=SLOTS, batch=BATCH)


@pytest.fixture(params=["inline", "processes"])
def examiners(request: pytest.FixtureRequest) -> Examiners:
    if request.param == "inline":
        return InlineExaminers(ThreadOffload(2), batch=BATCH, slots=SLOTS)
    return PROCESSES


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(7).bytes(6 * BATCH)


@pytest.fixture
def disk(tmp_path: Path, content: bytes) -> OpenFile:
    path = tmp_path / "disk"
    path.write_bytes(content)
    return opened(path)


def opened(path: Path, flags: int = os.O_RDONLY) -> SystemFile:
    return SystemFile(os.open(path, flags | os.O_CLOEXEC), str(path))


def unknown(chunks: int = BATCH // CHUNK) -> U64:
    return np.tile(np.array(UNKNOWN, np.uint64), (chunks, 1))


def expected_chunks(content: bytes) -> list[list[int]]:
    return [list(chunk_digest(content[at : at + CHUNK])) for at in range(0, len(content), CHUNK)]


def check_new(found: Examined, content: bytes) -> None:
    """Everything was unknown, nothing is zero."""
    assert found.changed == len(content) // CHUNK
    assert found.chunks.tolist() == expected_chunks(content)
    assert found.content.tobytes() == content
    for at in (0, len(content) // BLOCK - 1):
        block = content[at * BLOCK : (at + 1) * BLOCK]
        assert tuple(found.blocks[at].tolist()) == block_digest(block)


async def test_new_then_unchanged(examiners: Examiners, disk: OpenFile, content: bytes) -> None:
    async with examiners.open([disk], KEYS) as examiner:
        found = await examiner.examine(0, BATCH, BATCH, unknown())
        assert (found.first_chunk, found.length, found.read) == (BATCH // CHUNK, BATCH, BATCH)
        check_new(found, content[BATCH : 2 * BATCH])
        known = found.chunks.copy()
        found.release()
        found = await examiner.examine(0, BATCH, BATCH, known)
        assert found.changed == 0
        assert found.chunks.tolist() == found.known.tolist() == known.tolist()
        found.release()


async def test_many_at_once_over_few_slots(
    examiners: Examiners, disk: OpenFile, content: bytes
) -> None:
    done: list[int] = []

    async def one(examiner: Examiner, at: int) -> None:
        offset = at % 6 * BATCH
        found = await examiner.examine(0, offset, BATCH, unknown())
        check_new(found, content[offset : offset + BATCH])
        found.release()
        done.append(at)

    async with examiners.open([disk], KEYS) as examiner, trio.open_nursery() as nursery:
        for at in range(18):
            nursery.start_soon(one, examiner, at)
    assert sorted(done) == list(range(18))


async def test_several_disks_a_hole_and_a_tail(
    examiners: Examiners, disk: OpenFile, tmp_path: Path
) -> None:
    other = opened(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    other.truncate(BATCH + CHUNK + 5)
    other.pwrite(BATCH + CHUNK, b"12345")
    async with examiners.open([disk, other], KEYS) as examiner:
        found = await examiner.examine(1, BATCH, CHUNK + 5, unknown(2))
        assert found.changed == 2
        assert found.chunks.tolist() == [list(ZERO), list(UNKNOWN)]
        assert found.blocks.shape == (CHUNK_BLOCKS + 1, 2)
        assert found.content[-1].tobytes() == b"12345" + bytes(BLOCK - 5)
        assert tuple(found.blocks[-1].tolist()) == block_digest(b"12345" + bytes(BLOCK - 5))
        found.release()


async def test_a_disk_that_ends_early(
    examiners: Examiners, disk: OpenFile, tmp_path: Path, content: bytes
) -> None:
    async with examiners.open([disk], KEYS) as examiner:
        os.truncate(disk.path, BATCH + 100)
        for _ in range(SLOTS + 1):  # no slot is lost
            with pytest.raises(SourceShrunk) as caught:
                await examiner.examine(0, BATCH, BATCH, unknown())
        assert caught.value.subject == disk.path
        assert str(BATCH + 100) in caught.value.message
        found = await examiner.examine(0, 0, BATCH, unknown())
        check_new(found, content[:BATCH])
        found.release()


async def test_a_disk_that_cannot_be_read(
    examiners: Examiners, disk: OpenFile, content: bytes
) -> None:
    refusing = opened(Path(disk.path), os.O_WRONLY)
    async with examiners.open([refusing, disk], KEYS) as examiner:
        for _ in range(SLOTS + 1):
            with pytest.raises(SourceIO) as caught:
                await examiner.examine(0, BATCH, BATCH, unknown())
        assert caught.value.subject == disk.path
        assert f"byte {BATCH} (EBADF)" in caught.value.message
        found = await examiner.examine(1, 0, BATCH, unknown())
        check_new(found, content[:BATCH])
        found.release()
    refusing.close()


async def test_cancelling_loses_no_slot(
    examiners: Examiners, disk: OpenFile, content: bytes
) -> None:
    async def one(examiner: Examiner) -> None:
        (await examiner.examine(0, 0, BATCH, unknown())).release()

    async with examiners.open([disk], KEYS) as examiner:
        for steps in range(4 * SLOTS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, examiner)
                for _ in range(steps // 2):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        found = await examiner.examine(0, 0, BATCH, unknown())
        check_new(found, content[:BATCH])
        found.release()


def gone(pid: int) -> bool:
    """Ended and reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_cancelled_call_keeps_its_slot_until_the_worker_is_done_with_it(
    disk: OpenFile, content: bytes
) -> None:
    async with ONE_PROCESS.opened([disk], KEYS) as examiner:
        (pid,) = examiner.pids
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(examiner.examine, 0, 0, BATCH, unknown())
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert examiner.free_slots == SLOTS - 1
        os.kill(pid, signal.SIGCONT)
        found = await examiner.examine(0, BATCH, BATCH, unknown())  # answered after the other
        check_new(found, content[BATCH : 2 * BATCH])
        assert examiner.free_slots == SLOTS - 1
        found.release()
        assert examiner.free_slots == SLOTS


async def test_a_worker_killed_at_work(disk: OpenFile) -> None:
    async with ONE_PROCESS.opened([disk], KEYS) as examiner:
        (pid,) = examiner.pids
        os.kill(pid, signal.SIGSTOP)  # so that the request is on its way when it dies
        with pytest.raises(WorkerLost) as caught:
            async with crew() as nursery:
                nursery.start_soon(examiner.examine, 0, 0, BATCH, unknown())
                await wait_all_tasks_blocked()
                os.kill(pid, signal.SIGKILL)
        assert caught.value.recoverable
        assert "signal 9" in caught.value.message
        with pytest.raises(WorkerLost):
            await examiner.examine(0, 0, BATCH, unknown())
        assert examiner.free_slots == SLOTS
    assert gone(pid)


async def test_workers_end_with_the_context_and_with_its_errors(disk: OpenFile) -> None:
    async with PROCESSES.opened([disk], KEYS) as examiner:
        pids = examiner.pids
        assert len(pids) == 2
    assert all(map(gone, pids))
    with pytest.raises(ZeroDivisionError):
        async with PROCESSES.opened([disk], KEYS) as examiner:
            pids = examiner.pids
            raise ZeroDivisionError
    assert all(map(gone, pids))


async def test_a_worker_that_cannot_start(
    disk: OpenFile, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "MODULE", "stages.capture.nowhere")
    async with PROCESSES.opened([disk], KEYS) as examiner:
        with pytest.raises(WorkerLost, match="exited with code 1"):
            await examiner.examine(0, 0, BATCH, unknown())


async def test_no_process_can_be_started(disk: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(WorkerLost, match="cannot be started"):
        async with PROCESSES.opened([disk], KEYS):
            pass


async def test_workers_are_spared_the_weight_of_trio() -> None:
    code = "import sys, stages.capture.worker; sys.exit('trio' in sys.modules)"
    await trio.run_process([sys.executable, "-c", code])


async def test_a_worker_that_talks_nonsense(
    disk: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MODULE", "this")
    async with ONE_PROCESS.opened([disk], KEYS) as examiner:
        with pytest.raises(WorkerLost):
            await examiner.examine(0, 0, BATCH, unknown())


@pytest.mark.parametrize("stdin", [b"", b"half a hello", b"\0" * 80])
async def test_a_worker_ends_when_its_input_does(stdin: bytes) -> None:
    command = [sys.executable, "-m", "stages.capture.worker"]
    ended = await trio.run_process(
        command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
    )
    assert ended.stdout == b""


async def test_keys_are_not_on_the_command_line(disk: OpenFile) -> None:
    async with ONE_PROCESS.opened([disk], KEYS) as examiner:
        found = await examiner.examine(0, 0, BATCH, unknown())
        found.release()
        command = await trio.Path(f"/proc/{examiner.pids[0]}/cmdline").read_bytes()
        environment = await trio.Path(f"/proc/{examiner.pids[0]}/environ").read_bytes()
    for secret in (GROUP_KEY, KEYS.block, KEYS.chunk):
        for text in (secret, secret.hex().encode()):
            assert text not in command + environment


class Watched:
    """Hands out process examiners and remembers the last."""

    def __init__(self) -> None:
        self.examiner: ProcessExaminer | None = None

    def open(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AbstractAsyncContextManager[Examiner]:
        return self._opened(disks, keys)

    @asynccontextmanager
    async def _opened(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AsyncIterator[ProcessExaminer]:
        async with PROCESSES.opened(disks, keys) as examiner:
            self.examiner = examiner
            yield examiner


async def test_workers_killed_in_the_middle_of_a_scan(tmp_path: Path) -> None:
    path = tmp_path / "big"
    content = np.random.default_rng(8).bytes(30 * BATCH)
    path.write_bytes(content)
    target = disk_at(path)
    watched = Watched()
    items: list[StreamItem] = []

    def kill(item: StreamItem) -> None:
        items.append(item)
        if len(items) == 3 and watched.examiner is not None:
            for pid in watched.examiner.pids:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerLost):
        await scan([target], VaultModel([target.disk]), examiners=watched, on_item=kill)
    assert watched.examiner is not None
    assert all(map(gone, watched.examiner.pids))
    assert 3 <= len(items) < 30
    vault = VaultModel([target.disk])
    vault.apply((await scan([target], vault, on=machine())).items)
    assert vault.disks[1].content == content


def test_inherited_files_behave_like_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    file.truncate(10 * CHUNK)
    file.pwrite(3 * CHUNK, b"x" * CHUNK)
    inherited = InheritedFile(file.fileno())
    for offset in (0, 3 * CHUNK, 4 * CHUNK, 20 * CHUNK):
        assert inherited.next_data(offset) == file.next_data(offset)
        assert inherited.next_hole(offset) == file.next_hole(offset)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: real(fd, [into[0][:999]], at))
    target = bytearray(2 * CHUNK)
    assert inherited.pread_into(3 * CHUNK, memoryview(target)) == 2 * CHUNK
    assert target == b"x" * CHUNK + bytes(CHUNK)
    assert inherited.pread_into(10 * CHUNK - 5, memoryview(target)) == 5
    file.close()
