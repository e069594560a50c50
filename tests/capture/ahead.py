"""What the tests of copies made ahead run, each in a process of its own that has one thread."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import trio

from stages import system_workers
from stages.capture.pool import ProcessExaminer, ProcessExaminers
from stages.capture.worker import MODULE, start_ahead
from stages.digests import DigestKeys
from stages.errors import WorkerLost
from stages.model import BLOCK, CHUNK, UNKNOWN
from stages.system import SystemFile
from stages.system_workers import forget_ahead, fork_ahead
from tests.capture.vault_model import GROUP_KEY, chunk_digest

BATCH = 4 * CHUNK
KEYS = DigestKeys.derive(GROUP_KEY)


def copies() -> list[int]:
    """Their process ids."""
    return [copy.pid for copy in system_workers._ahead]


def children() -> list[int]:
    """Of this process, those included that have ended and were not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def disk(at: Path, number: int) -> SystemFile:
    """A disk of one batch that differs from the others."""
    path = at / f"disk{number}"
    path.write_bytes(np.random.default_rng(number).bytes(BATCH))
    return SystemFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), str(path))


async def examined(examiner: ProcessExaminer, place: int, number: int = 0) -> None:
    """All of the disk in that place is what it should be."""
    unknown = np.tile(np.array(UNKNOWN, np.uint64), (BATCH // CHUNK, 1))
    found = await examiner.examine(place, 0, BATCH, unknown)
    content = np.random.default_rng(number).bytes(BATCH)
    chunks = [list(chunk_digest(content[at : at + CHUNK])) for at in range(0, BATCH, CHUNK)]
    assert found.chunks.tolist() == chunks
    assert found.content.shape == (BATCH // BLOCK, BLOCK)
    found.release()


def work(at: Path) -> None:
    """They are the helpers, and have the descriptors of many disks under the right numbers."""
    start_ahead(2)
    made = copies()
    assert len(made) == 2
    start_ahead(2)
    assert copies() == made, "as many as were asked for, not as often"
    disks = [disk(at, number) for number in range(20)]
    disks.reverse()  # their descriptors do not ascend

    async def main() -> None:
        processes = ProcessExaminers(workers=2, slots=3, batch=BATCH)
        async with processes.opened(disks, KEYS) as examiner:
            assert sorted(examiner.pids) == sorted(made)
            for place in range(20):
                await examined(examiner, place, 19 - place)
        assert not children(), "both were waited for"
        async with processes.opened(disks, KEYS) as examiner:  # there are no more: started anew
            assert not set(examiner.pids) & set(made)
            await examined(examiner, 3, 16)
        assert not children()

    trio.run(main)


def dies_at_work(at: Path) -> None:
    """As one that was started: who waits for it hears of it."""
    start_ahead(2)

    async def main() -> None:
        disks = [disk(at, 0)]
        async with ProcessExaminers(workers=1, slots=3, batch=BATCH).opened(disks, KEYS) as one:
            os.kill(one.pids[0], signal.SIGSTOP)

            async def killed() -> None:
                os.kill(one.pids[0], signal.SIGKILL)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(killed)
                try:
                    await examined(one, 0)
                except WorkerLost as lost:
                    assert "killed by signal 9" in str(lost)
                else:
                    raise AssertionError("it was dead")
        assert len(children()) == len(copies()) == 1
        forget_ahead()
        assert not children()

    trio.run(main)


def dead_before(at: Path) -> None:
    """Those that have gone are not missed."""
    start_ahead(2)
    made = copies()
    for pid in made:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    async def main() -> None:
        disks = [disk(at, 0)]
        async with ProcessExaminers(workers=2, slots=3, batch=BATCH).opened(disks, KEYS) as pair:
            assert not set(pair.pids) & set(made)
            await examined(pair, 0)
        assert not children()

    trio.run(main)


def defective(at: Path) -> None:
    """What a copy fails with stays in it."""

    def serve(mail: system_workers.Mailbox) -> None:
        raise ValueError("of no use")

    fork_ahead(1, MODULE, serve)

    async def main() -> None:
        disks = [disk(at, 0)]
        async with ProcessExaminers(workers=1, slots=3, batch=BATCH).opened(disks, KEYS) as one:
            try:
                await examined(one, 0)
            except WorkerLost as lost:
                assert "exited with code 1" in str(lost)
            else:
                raise AssertionError("it has failed")

    trio.run(main)


def abandoned(at: Path) -> None:
    """Their numbers, and a life that only kill -9 ends."""
    start_ahead(2)
    sys.stdout.write(" ".join(map(str, copies())) + "\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
