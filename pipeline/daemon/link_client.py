"""The side of delivery and of the command line: intake at the other end of a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from pipeline.daemon.frames import VERSION, Frames, connect
from stages import errors
from stages.errors import BackstayError, ProtocolError
from stages.stage import crew
from stages.stream import ORIGIN, DeliveryGone, Digests, MarkedPoint, Position

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class IntakeGone(BackstayError):
    """Intake hung up, or is not running: tried again when it is back."""

    recoverable = True
    exit_code = 8


class RemoteUpstream:
    """An ``Upstream`` through a socket. Made by ``upstream``."""

    def __init__(self, frames: Frames):
        self.durable = ORIGIN
        self._frames = frames
        self._moved = trio.lowlevel.ParkingLot()
        self._begin: list[Position] = []
        self._digests: Digests | None = None

    async def wait_durable(self, beyond: Position) -> Position:
        """See ``Upstream``."""
        while self.durable <= beyond:
            await self._moved.park()
        return self.durable

    async def committed(self, position: Position) -> None:
        """See ``Upstream``."""
        await self._send("committed", *position)

    async def settled(self, position: Position) -> None:
        """See ``Upstream``."""
        await self._send("settled", *position)

    async def marked(self, point: MarkedPoint) -> None:
        """See ``Upstream``."""
        await self._send("marked", point.mark, point.seq, point.stamp, point.grade, point.reason)

    async def lost(self, reason: str) -> Position:
        """See ``Upstream``."""
        self._begin.clear()
        await self._send("lost", reason)
        while not self._begin:
            await self._moved.park()
        return self._begin[0]

    @asynccontextmanager
    async def attached(self, digests: Digests) -> AsyncIterator[None]:
        """Intake's questions are answered from ``digests`` while this lasts."""
        self._digests = digests
        await self._send("attach")
        yield

    async def hear(self) -> None:
        """Take in what intake says, until it hangs up: ``IntakeGone``."""
        try:
            async with crew() as nursery:
                while (message := await self._frames.receive()) is not None:
                    self._take(message, nursery)
                raise IntakeGone("intake hung up", operation="deliver")
        except _GONE as error:
            raise IntakeGone(f"intake hung up ({error})", operation="deliver") from None

    def _take(self, message: list[Any], nursery: trio.Nursery) -> None:
        match message:
            case ["durable", int(run), int(offset)]:
                self.durable = Position(run, offset)
            case ["begin", int(run), int(offset)]:
                self._begin.append(Position(run, offset))
            case ["ask", int(number), str(what), *arguments]:
                nursery.start_soon(self._answer, number, what, arguments)
            case ["refused", str(reason)]:
                raise ProtocolError(reason, operation="deliver")
            case _:
                raise ProtocolError(f"{message[0]!r}", operation="deliver")
        self._moved.unpark_all()

    async def _answer(self, number: int, what: str, arguments: list[int]) -> None:
        if self._digests is None:
            raise DeliveryGone("asked before it was attached", operation="deliver")
        if what == "key":
            value = await self._digests.key()
        elif what == "chunks":
            value = (await self._digests.chunks(*arguments)).tobytes()
        else:
            value = (await self._digests.blocks(*arguments)).tobytes()
        await self._send("answer", number, value)

    async def _send(self, *message: Any) -> None:
        try:
            await self._frames.send(*message)
        except _GONE as error:
            raise IntakeGone(f"intake hung up ({error})", operation="deliver") from None


@asynccontextmanager
async def upstream(path: str, machine: str) -> AsyncIterator[RemoteUpstream]:
    """Intake of ``machine``, behind the socket at ``path``. ``IntakeGone``, also out of the block,
    when intake hangs up."""
    frames = await _connected(path)
    try:
        await frames.send("delivery", VERSION, machine)
        remote = RemoteUpstream(frames)
        async with crew() as nursery:
            nursery.start_soon(remote.hear)
            await remote.wait_durable(ORIGIN)
            yield remote
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await frames.aclose()


async def command(path: str, name: str, **arguments: Any) -> dict[str, Any]:
    """Have intake carry out a command. ``IntakeGone`` if it is not there, or its error."""
    frames = await _connected(path)
    try:
        await frames.send("control", VERSION)
        await frames.send(name, arguments)
        answer = await frames.receive()
    except _GONE as error:
        raise IntakeGone(str(error), operation=name, subject=path) from None
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await frames.aclose()
    match answer:
        case ["done", dict(found)]:
            return found
        case ["failed", str(kind), str(message), str(operation), str(subject), str(hint)]:
            wrong = getattr(errors, kind, BackstayError)
            raise wrong(message, operation=operation, subject=subject, hint=hint)
        case _:
            raise IntakeGone("it hung up", operation=name, subject=path)


async def _connected(path: str) -> Frames:
    try:
        return await connect(path)
    except OSError as error:
        raise IntakeGone(
            f"intake is not running ({error.strerror or error})",
            operation="connect",
            subject=path,
            hint="start it with: backstay run CONFIG",
        ) from None
