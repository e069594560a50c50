"""Who executes requests: a ``BatchHandler``, and the one that runs a ``Device``."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio

from stages.errors import BackstayError, leaves
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.device import EXPECTED, Device, DeviceInfo, error_code
from stages.nbd.replies import ReplySink, clip
from stages.nbd.transmission import Batch, Request


class BatchHandler(Protocol):
    """One export, shared by its connections.

    ``concurrent``: batches of one connection may run at the same time, each in a task of its own.
    Else they run one after the other, in order, and the answers of each leave in one send.
    """

    concurrent: bool

    @property
    def info(self) -> DeviceInfo:
        """The same object for the life of the handler."""

    def swift(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReplySink
    ) -> tuple[int, int]:
        """Execute and answer, at once, as many requests as that is possible for, up to ``most``.

        They stand in ``buffer`` from ``at``, unparsed; what is received ends at ``end``. Returns
        where the first one stands that is left to ``execute``, and how many were answered: writes
        with ``ReplySink.done_swiftly``, reads with ``place`` and ``keep``. Called before
        ``execute``, and not where batches run at the same time.
        """

    async def execute(self, batch: Batch, replies: ReplySink) -> None:
        """Execute and answer every request of the batch before returning.

        An exception ends the connection.
        """

    async def flush(self) -> None:
        """Make every answered write durable: the server shuts down."""


class DeviceHandler:
    """Runs a ``Device``: requests side by side, answers as they finish.

    How many run at a time is what the session lets in. A flush waits for nothing but the device:
    writes answered before it have returned from the device, and those are what it must cover.
    """

    concurrent = True

    def __init__(self, device: Device):
        self.device = device

    @property
    def info(self) -> DeviceInfo:
        """The device's."""
        return self.device.info

    async def flush(self) -> None:
        """Flush the device, if it can and needs it."""
        if self.info.flags.flush and not self.info.read_only:
            await self.device.flush()

    def swift(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReplySink
    ) -> tuple[int, int]:
        """None: a device always waits."""
        return at, 0

    async def execute(self, batch: Batch, replies: ReplySink) -> None:
        """Run the requests of a batch, each in its own task if the ones before it wait."""
        if len(batch.requests) == 1:
            await self._answer(batch.requests[0], replies)
            return
        queue = deque(batch.requests)
        async with trio.open_nursery() as nursery:
            await self._work(queue, replies, nursery, helpers=1)

    async def _work(
        self,
        queue: deque[Request],
        replies: ReplySink,
        nursery: trio.Nursery,
        helpers: int = 2,
    ) -> None:
        # Every worker that starts brings two more (the first one: one). If requests wait, workers
        # double at every turn of the loop; if not, the first has done all before others look.
        for _ in range(min(helpers, len(queue) - 1)):
            nursery.start_soon(self._work, queue, replies, nursery)
        while queue:
            await self._answer(queue.popleft(), replies)

    async def _answer(self, request: Request, replies: ReplySink) -> None:
        try:
            await self._run(request, replies)
        except EXPECTED as error:
            replies.fail(request, error_code(error), _reason(error))
        except BaseExceptionGroup as group:
            causes = leaves(group)
            if not all(isinstance(cause, EXPECTED) for cause in causes):
                raise
            replies.fail(request, error_code(causes[0]), _reason(causes[0]))

    async def _run(self, request: Request, replies: ReplySink) -> None:
        device, command = self.device, request.command
        offset, length = request.offset, request.length
        fua = bool(request.flags & wire.FLAG_FUA)
        if command == wire.CMD_READ:
            replies.data(request, await device.read(offset, length))
            return
        if command == wire.CMD_BLOCK_STATUS:
            await self._block_status(request, replies)
            return
        if command == wire.CMD_WRITE:
            await device.write(offset, request.payload, fua)
        elif command == wire.CMD_FLUSH:
            await device.flush()
        elif command == wire.CMD_TRIM:
            await device.trim(offset, length, fua)
        else:
            no_hole = bool(request.flags & wire.FLAG_NO_HOLE)
            await device.zero(offset, length, no_hole=no_hole, fua=fua)
        replies.done(request)

    async def _block_status(self, request: Request, replies: ReplySink) -> None:
        found = await self.device.extents(request.offset, request.length)
        one = bool(request.flags & wire.FLAG_REQ_ONE)
        extents = clip(found, request.length, one=one)
        if extents:
            replies.extents(request, extents)
        else:
            replies.fail(request, wire.EIO, "the device knows no extents")


def _reason(error: BaseException) -> str:
    if isinstance(error, BackstayError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or "input/output error"
    return "out of memory"
