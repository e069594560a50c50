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
from stages.stream import ORIGIN, Digests, MarkedPoint, Position

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_ONLY = 1  # number of a command that has its connection for itself


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
        self._here: list[Position] = []
        self._answering: tuple[Digests, trio.Nursery] | None = None
        self._attached = trio.Event()

    async def greet(self, machine: str) -> None:
        """Say who is there, first of all."""
        await self._send("delivery", VERSION, machine)

    async def wait_durable(self, beyond: Position) -> Position:
        """See ``Upstream``."""
        while self.durable <= beyond:
            await self._moved.park()
        return self.durable

    async def newest(self) -> Position:
        """What is durable now, asked of intake: ``durable`` lags behind by what it is still telling
        us."""
        self._here.clear()
        await self._send("where")
        while not self._here:
            await self._moved.park()
        return self._here[0]

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
        """Intake's questions are answered from ``digests`` while this lasts, and no longer: none
        is being answered any more when it has ended. Hang up then."""
        async with crew() as nursery:
            self._answering = digests, nursery
            try:
                await self._send("attach")
                self._attached.set()
                yield
            finally:
                self._answering = None
            nursery.cancel_scope.cancel()

    async def wait_attached(self) -> None:
        """Return when delivery has got so far that it answers."""
        await self._attached.wait()

    async def hear(self) -> None:
        """Take in what intake says, until it hangs up: ``IntakeGone``."""
        try:
            while (message := await self._frames.receive()) is not None:
                self._take(message)
        except _GONE as error:
            raise IntakeGone(f"intake hung up ({error})", operation="deliver") from None
        raise IntakeGone("intake hung up", operation="deliver")

    def _take(self, message: list[Any]) -> None:
        match message:
            case ["durable", int(run), int(offset)]:
                self.durable = Position(run, offset)
            case ["here", int(run), int(offset)]:
                self._here.append(Position(run, offset))
            case ["begin", int(run), int(offset)]:
                self._begin.append(Position(run, offset))
            case ["ask", int(number), str(what), *arguments]:
                if self._answering is not None:
                    digests, nursery = self._answering
                    nursery.start_soon(self._answer, digests, number, what, arguments)
            case ["absent"]:
                raise IntakeGone("intake does not have the machine now", operation="deliver")
            case ["refused", str(reason)]:
                raise ProtocolError(reason, operation="deliver")
            case _:
                raise ProtocolError(f"{message[0]!r}", operation="deliver")
        self._moved.unpark_all()

    async def _answer(self, digests: Digests, number: int, what: str, about: list[int]) -> None:
        match what, about:
            case "key", []:
                value = await digests.key()
            case "chunks", [int(disk), int(first), int(count)]:
                value = (await digests.chunks(disk, first, count)).astype("<u8").tobytes()
            case "blocks", [int(disk), int(first), int(count)]:
                value = (await digests.blocks(disk, first, count)).astype("<u8").tobytes()
            case _:
                raise ProtocolError(f"asked for {what!r}", operation="deliver")
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
        remote = RemoteUpstream(frames)
        await remote.greet(machine)
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
        await frames.send(_ONLY, name, arguments)
        answer = await frames.receive()
    except _GONE as error:
        raise IntakeGone(str(error), operation=name, subject=path) from None
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await frames.aclose()
    match answer:
        case ["done", _, dict(found)]:
            return found
        case ["refused", str(reason)]:
            raise ProtocolError(reason, operation=name, subject=path)
        case ["failed", _, str(kind), str(message), str(operation), str(subject), str(hint)]:
            raise as_error(kind, message, operation, subject, hint)
        case _:
            raise IntakeGone("it hung up", operation=name, subject=path)


def as_error(kind: str, message: str, operation: str, subject: str, hint: str) -> BackstayError:
    """An error that another process of the daemon told, by the name of its class."""
    found = getattr(errors, kind, None)
    if not (isinstance(found, type) and issubclass(found, BackstayError)):
        found = BackstayError
    return found(message, operation=operation, subject=subject, hint=hint)


async def _connected(path: str) -> Frames:
    try:
        return await connect(path)
    except OSError as error:
        forbidden = error.errno in errors.FORBIDDEN
        raise IntakeGone(
            f"intake {'may not be asked' if forbidden else 'is not running'} "
            f"({error.strerror or error})",
            operation="connect",
            subject=path,
            hint="give this command as the user that runs Backstay, or as root"
            if forbidden
            else "start it with: backstay run CONFIG",
        ) from None
