"""The side of intake: its joints and controls, for delivery and the command line."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from pipeline.daemon.frames import VERSION, Frames
from pipeline.reach import reachable
from stages.errors import BackstayError, ProtocolError
from stages.joint import Joint
from stages.model import U64
from stages.nbd.listening import UnixAddress, listening
from stages.stage import crew
from stages.stream import DeliveryGone, MarkedPoint, Position

Control = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""(command, arguments) to an answer; raises ``BackstayError``."""

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MORE_CONNECTIONS = 64  # beside one for each machine's delivery
_MAX_COMMANDS = 16  # of one connection, at a time
_HELLO_SECONDS = 10.0
_TELL_SECONDS = 0.05  # between two words of what is durable: each wakes the other process
_KEY_BYTES = 32
_PAIR_BYTES = 16


class RemoteDigests:
    """Asks delivery at the other end of a connection."""

    def __init__(self, frames: Frames):
        self._frames = frames
        self._asked: dict[int, tuple[trio.Event, list[bytes]]] = {}
        self._next = 0
        self._gone = False

    async def key(self) -> bytes:
        """See ``Digests``."""
        key = await self._ask("key")
        if len(key) != _KEY_BYTES:
            raise DeliveryGone("delivery answered with no key", operation="ask for digests")
        return key

    async def chunks(self, disk: int, first: int, count: int) -> U64:
        """See ``Digests``."""
        return _pairs(await self._ask("chunks", disk, first, count), count)

    async def blocks(self, disk: int, first: int, count: int) -> U64:
        """See ``Digests``."""
        return _pairs(await self._ask("blocks", disk, first, count), count)

    def answered(self, number: int, value: bytes) -> None:
        """An answer came."""
        if number in self._asked:
            event, found = self._asked[number]
            found.append(value)
            event.set()

    def hang_up(self) -> None:
        """No answer will come any more."""
        self._gone = True
        for event, _ in self._asked.values():
            event.set()

    async def _ask(self, *question: Any) -> bytes:
        number = self._next = self._next + 1
        found: list[bytes] = []
        event, _ = self._asked[number] = (trio.Event(), found)
        try:
            if not self._gone:
                await self._frames.send("ask", number, *question)
                await event.wait()
        except _GONE:
            pass
        finally:
            del self._asked[number]
        if not found:
            raise DeliveryGone("delivery hung up", operation="ask for digests")
        return found[0]


@dataclass
class LinkServer:
    """Serves ``joints`` (by machine) and ``control`` at ``path``."""

    path: str
    joints: Mapping[str, Joint]
    control: Control

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled. Raises ``UsageError`` if the path cannot be had."""
        with reachable(self.path) as path:
            async with listening(UnixAddress(path)) as (listener, _):
                task_status.started()
                async with trio.open_nursery() as nursery:
                    await self._accept(listener, nursery)

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                await trio.sleep(0.1)  # until a descriptor is free
                continue
            if len(nursery.child_tasks) >= len(self.joints) + _MORE_CONNECTIONS:
                await stream.aclose()
            else:
                nursery.start_soon(self._connection, Frames(stream))

    async def _connection(self, frames: Frames) -> None:
        """Whatever a peer does ends its connection, and nothing else."""
        try:
            hello = None
            with trio.move_on_after(_HELLO_SECONDS):
                hello = await frames.receive()
            if hello is not None:
                await self._greeted(frames, hello)
        except (BackstayError, *_GONE):
            pass
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await frames.aclose()

    async def _greeted(self, frames: Frames, hello: list[Any]) -> None:
        match hello:
            case ["delivery", version, str(name)] if version == VERSION and name in self.joints:
                await self._deliver(frames, self.joints[name])
            case ["delivery", version, str()] if version == VERSION:
                await frames.send("absent")  # for now: whoever asks comes again
            case ["control", version] if version == VERSION:
                await self._controlled(frames)
            case _:
                await frames.send("refused", "intake has another version")

    async def _deliver(self, frames: Frames, joint: Joint) -> None:
        digests = RemoteDigests(frames)
        try:
            await frames.send("durable", *joint.durable)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._publish, frames, joint)
                await self._hear(frames, joint, digests, nursery)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            rest = group.split((BackstayError, *_GONE))[1]
            if rest is not None:
                raise rest from None
        finally:
            digests.hang_up()

    @staticmethod
    async def _publish(frames: Frames, joint: Joint) -> None:
        seen = joint.durable
        while True:
            seen = await joint.wait_durable(seen)
            await frames.send("durable", *seen)
            await trio.sleep(_TELL_SECONDS)

    @staticmethod
    async def _hear(
        frames: Frames, joint: Joint, digests: RemoteDigests, nursery: trio.Nursery
    ) -> None:
        async def attached() -> None:
            async with joint.attached(digests):
                await trio.sleep_forever()

        while (message := await frames.receive()) is not None:
            match message:
                case ["attach"]:
                    nursery.start_soon(attached)
                case ["committed", int(run), int(offset)]:
                    await joint.committed(Position(run, offset))
                case ["settled", int(run), int(offset)]:
                    await joint.settled(Position(run, offset))
                case ["marked", int(mark), int(seq), int(stamp), str(grade), str(reason)]:
                    await joint.marked(MarkedPoint(mark, seq, stamp, grade, reason))
                case ["where"]:
                    await frames.send("here", *joint.durable)
                case ["lost", str(reason)]:
                    await frames.send("begin", *await joint.lost(reason))
                case ["answer", int(number), bytes(value)]:
                    digests.answered(number, value)
                case _:
                    raise ProtocolError(f"{message[0]!r}", operation="daemon's socket")

    async def _controlled(self, frames: Frames) -> None:
        """Commands by number, side by side. Who hangs up waits for no answer any more."""
        async with crew() as nursery:
            while (message := await frames.receive()) is not None:
                match message:
                    case [int(number), str(command), dict(arguments)]:
                        if len(nursery.child_tasks) >= _MAX_COMMANDS:
                            raise ProtocolError("too many commands", operation="daemon's socket")
                        nursery.start_soon(self._command, frames, number, command, arguments)
                    case _:
                        raise ProtocolError("not a command", operation="daemon's socket")
            nursery.cancel_scope.cancel()

    async def _command(
        self, frames: Frames, number: int, command: str, arguments: dict[str, Any]
    ) -> None:
        try:
            await frames.send("done", number, await self.control(command, arguments))
        except BackstayError as error:
            fields = [error.message, error.operation, error.subject, error.hint]
            await frames.send("failed", number, type(error).__name__, *fields)


def _pairs(data: bytes, count: int) -> U64:
    if len(data) != _PAIR_BYTES * count:
        raise DeliveryGone("delivery answered with another length", operation="ask for digests")
    return np.frombuffer(data, "<u8").astype(np.uint64).reshape(-1, 2)
