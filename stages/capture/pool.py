"""The examiner that works in helper processes, on memory shared with them.

Two processes hash 4 KiB blocks at twice the speed of one; two threads are slower than one, and
would hold up the event loop besides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from stages.capture.examine import Outcome, ReadFailed
from stages.capture.examiner import Examined, Examiner, SlotPool, source_error
from stages.capture.slots import Layout, Slot
from stages.capture.worker import MODULE, READ_WELL, REPLY, Request, hello
from stages.digests import DigestKeys
from stages.errors import WorkerLost
from stages.model import U64
from stages.ports import OpenFile
from stages.stage import crew
from stages.system_workers import Helper, SharedMemory, start_helper

MAX_DISKS = 512  # of one examiner: their descriptors must fit into one message
MAX_SLOTS = 256  # so that all requests on their way fit into a pipe
_REAP_SECONDS = 5.0


class _Call:
    """One request on its way; its slot is the worker's until the reply is there."""

    __slots__ = ("abandoned", "done", "outcome", "slot")

    def __init__(self, slot: Slot):
        self.slot = slot
        self.done = trio.Event()
        self.abandoned = False
        self.outcome: Outcome | ReadFailed | WorkerLost

    def finish(self, outcome: Outcome | ReadFailed | WorkerLost) -> None:
        self.outcome = outcome
        self.done.set()


class _Worker:
    """A helper and the calls it has not answered yet, oldest first."""

    def __init__(self, helper: Helper):
        self.helper = helper
        self.calls: deque[_Call] = deque()
        self.lost: WorkerLost | None = None

    def submit(self, request: Request, slot: Slot) -> _Call:
        """Post a request. Without an await: the order of calls is the order of messages."""
        if self.lost is not None:
            raise self.lost
        call = _Call(slot)
        self.calls.append(call)
        self.helper.post(request.pack())  # if it is gone, its end of output says so
        return call

    def lose(self, how: str) -> None:
        """Fail every call, now and from now on."""
        self.lost = WorkerLost(
            f"the process {how}",
            operation="scan",
            subject=f"scan worker {self.helper.pid}",
            hint="tried again by itself; if memory ran out, the kernel log says so",
        )
        while self.calls:
            self.calls.popleft().finish(self.lost)


class ProcessExaminer:
    """See ``Examiner``. Made by ``ProcessExaminers``, whose context owns the processes."""

    def __init__(
        self,
        disks: Sequence[OpenFile],
        layout: Layout,
        slots: list[Slot],
        helpers: Sequence[Helper],
    ):
        self.batch = layout.batch
        self.slots = layout.count
        self._disks = disks
        self._pool = SlotPool(slots)
        self._workers = [_Worker(helper) for helper in helpers]

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.helper.pid for worker in self._workers]

    @property
    def free_slots(self) -> int:
        """Slots that nobody holds and no worker writes to."""
        return self._pool.free

    async def examine(self, disk: int, offset: int, length: int, known: U64) -> Examined:
        """See ``Examiner``."""
        slot = await self._pool.acquire()
        release = partial(self._pool.release, slot)
        slot.known[: len(known)] = known
        worker = min(self._workers, key=lambda worker: len(worker.calls))
        try:
            call = worker.submit(Request(slot.number, disk, offset, length), slot)
        except WorkerLost:
            release()
            raise
        await self._wait(call)
        if isinstance(call.outcome, Outcome):
            return Examined.of(slot, offset, length, call.outcome, release)
        release()
        if isinstance(call.outcome, ReadFailed):
            raise source_error(call.outcome, self._disks[disk].path) from call.outcome
        raise call.outcome

    async def read_replies(self, worker: _Worker) -> None:
        """Hand the replies of one worker to their calls until it ends; see ``ProcessExaminers``."""
        rest = b""
        while data := await worker.helper.receive():
            rest += data
            whole = len(rest) - len(rest) % REPLY.size
            if not all(self._settle(worker, *reply) for reply in REPLY.iter_unpack(rest[:whole])):
                worker.lose("answered what nobody asked")
                return
            rest = rest[whole:]
        worker.lose(await worker.helper.ended())

    def serve(self, nursery: trio.Nursery) -> None:
        """Start reading the replies of all workers."""
        for worker in self._workers:
            nursery.start_soon(self.read_replies, worker)

    async def _wait(self, call: _Call) -> None:
        try:
            await call.done.wait()
        except trio.Cancelled:
            if call.done.is_set():
                self._pool.release(call.slot)
            else:
                call.abandoned = True
            raise

    def _settle(self, worker: _Worker, slot: int, changed: int, code: int, count: int) -> bool:
        """Hand over one reply; False if it answers nothing."""
        if not worker.calls or worker.calls[0].slot.number != slot:
            return False
        call = worker.calls.popleft()
        if call.abandoned:
            self._pool.release(call.slot)
        call.finish(Outcome(changed, count) if code == READ_WELL else ReadFailed(count, code))
        return True


@dataclass(frozen=True, slots=True)
class ProcessExaminers:
    """Makes examiners of ``workers`` processes sharing ``slots`` slots of ``batch`` bytes.

    Of a slot only what differs from the known is written to, so long batches cost no memory on an
    unchanged disk, and save this process half of its work: 0.03 s per GiB.
    """

    workers: int = 2
    slots: int = 6  # in some of them is what waits to be compressed
    batch: int = 8 << 20

    def __post_init__(self) -> None:
        if self.workers < 1 or not 1 <= self.slots <= MAX_SLOTS:
            raise ValueError(f"{self.workers} workers, {self.slots} slots")

    def open(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AbstractAsyncContextManager[Examiner]:
        """See ``Examiners``."""
        return self.opened(disks, keys)

    @asynccontextmanager
    async def opened(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AsyncIterator[ProcessExaminer]:
        """Like ``open``."""
        if len(disks) > MAX_DISKS:
            raise ValueError(f"{len(disks)} disks in one scan, at most {MAX_DISKS}")
        layout = Layout(self.batch, self.slots)
        memory = SharedMemory(layout.size)
        fds = [disk.fileno() for disk in disks]
        helpers: list[Helper] = []
        try:
            for _ in range(self.workers):
                helpers.append(await _start([memory.fd, *fds]))
                # If it is gone already, the end of its output says so.
                helpers[-1].post(hello(keys, layout, memory.fd, fds))
            examiner = ProcessExaminer(disks, layout, layout.carve(memory.view), helpers)
            async with crew() as nursery:
                examiner.serve(nursery)
                yield examiner
                nursery.cancel_scope.cancel()
        finally:
            memory.close()
            await _reap(helpers)


async def _start(descriptors: Sequence[int]) -> Helper:
    try:
        return await start_helper(MODULE, descriptors)
    except OSError as error:
        raise WorkerLost(
            f"cannot be started: {error.strerror or error}",
            operation="scan",
            subject="scan worker",
            hint="tried again by itself; check memory and the limit of processes",
        ) from error


async def _reap(helpers: Sequence[Helper]) -> None:
    """Kill and wait, bounded: a process stuck in a read of a dead disk ends when the read does."""
    with trio.CancelScope(deadline=trio.current_time() + _REAP_SECONDS, shield=True):
        async with trio.open_nursery() as nursery:
            for helper in helpers:
                nursery.start_soon(helper.stop)
