"""Bodies as they arrive: bounded together in memory, each with a length, a limit and a pace."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import trio
from starlette.requests import ClientDisconnect, Request

from pipeline.site.problems import refuse
from stages.store.site import protocol

WAIT_SECONDS = 20.0  # for room in memory; a client waits longer for an answer
PAUSE_SECONDS = 30.0  # between two pieces of a body
SLOWEST = 16 << 10  # bytes a second, on the average


class Budget:
    """Bytes that all bodies together may take. Whoever came first is served first."""

    def __init__(self, total: int):
        self._free = total
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Hold ``size`` bytes. ``Busy`` if there is no room in time."""
        await self._take(size)
        try:
            yield
        finally:
            self._free += size
            self._serve()

    async def _take(self, size: int) -> None:
        if size <= self._free and not self._waiting:
            self._free -= size
            return
        mine = (size, trio.Event())
        self._waiting.append(mine)
        try:
            with trio.fail_after(WAIT_SECONDS):
                await mine[1].wait()
        except BaseException as raised:
            if mine[1].is_set():  # the room was given in the same moment
                self._free += size
            else:
                self._waiting.remove(mine)
            self._serve()
            if isinstance(raised, trio.TooSlowError):
                raise refuse(503, "too many objects arrive at a time") from None
            raise

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, event = self._waiting.popleft()
            self._free -= size
            event.set()


def length_of(request: Request, most: int) -> int:
    """The length of a request's body, which it must have."""
    said = request.headers.get("content-length", "")
    if not said.isdecimal():
        raise refuse(411, "the length of the object is not said")
    if len(said) > 18 or int(said) > most:
        raise refuse(
            413,
            f"the object is larger than {most} bytes",
            hint="raise max_object in the site's configuration",
        )
    return int(said)


async def read_body(request: Request, size: int) -> list[bytes]:
    """All of it, as it came. Refused if it is late, ends early, or has not the digest it bears."""
    parts: list[bytes] = []
    state = protocol.Digester()
    try:
        with trio.fail_after(PAUSE_SECONDS + size / SLOWEST):
            async with aclosing(request.stream()) as chunks:
                while True:
                    with trio.fail_after(PAUSE_SECONDS):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    parts.append(chunk)
                    state.update(chunk)
    except trio.TooSlowError:
        raise refuse(408, "the object did not arrive in time") from None
    except ClientDisconnect:
        raise refuse(408, "the client went away") from None
    if sum(map(len, parts)) != size:
        raise refuse(408, "the object did not arrive whole")
    wanted = request.headers.get(protocol.DIGEST_HEADER, "")
    if wanted and wanted.lower() != state.header():
        raise refuse(422, "the object was changed on its way: it has another digest")
    return parts
