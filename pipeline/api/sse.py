"""Events as they happen (server-sent events): bounded, with heartbeats; whoever is slow is cut off.

Nothing is buffered for a follower but one event and what the kernel holds of its connection. One
that does not read is cut off by the connection's send limit, one that falls too far behind by
``control``; both come back with the ``Last-Event-ID`` that they saw.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.api.guard import Api, as_json
from pipeline.api.problems import document, refuse
from pipeline.control.views import EventView
from stages.errors import BackstayError
from stages.stage import crew

MEDIA_TYPE = "text/event-stream"
_RETRY_MS = 2000


class EventStream(Response):
    """``after`` None: only what is new. ``machine``: only of this one, "" for all."""

    def __init__(self, api: Api, after: int | None, machine: str):
        if api.followers >= api.limits.followers:
            raise refuse(
                503,
                f"there are {api.followers} followers of events already",
                hint="read events by pages, or end another follower",
            )
        super().__init__(status_code=200, media_type=MEDIA_TYPE)
        self._api = api
        self._after = after
        self._machine = machine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until either side ends."""
        self._api.followers += 1
        try:
            headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _body(send, f"retry: {_RETRY_MS}\n\n")
            async with crew() as nursery:
                nursery.start_soon(_ended, receive, nursery.cancel_scope)
                nursery.start_soon(_stopped, self._api.stopping, nursery.cancel_scope)
                try:
                    await self._events(send)
                except BackstayError as error:
                    text = document(error).model_dump_json()
                    await _body(send, f"event: cut-off\ndata: {text}\n\n")
                nursery.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._api.followers -= 1

    async def _events(self, send: Send) -> None:
        after = await _newest(self._api) if self._after is None else self._after
        outbox, inbox = trio.open_memory_channel[EventView](0)
        async with crew() as nursery, inbox:
            nursery.start_soon(_pump, self._api.control.follow(after=after), outbox)
            while True:
                event = None
                with trio.move_on_after(self._api.limits.heartbeat_seconds):
                    try:
                        event = await inbox.receive()
                    except trio.EndOfChannel:
                        return
                if event is None:
                    await _body(send, ": still here\n\n")
                elif self._machine in ("", event.machine):
                    await _body(send, frame(event))


async def _pump(
    events: AsyncIterator[EventView], outbox: trio.MemorySendChannel[EventView]
) -> None:
    """``control``'s iterator is never cancelled in between, only at the end."""
    async with outbox, aclosing(cast(AsyncGenerator[EventView, None], events)) as found:
        async for event in found:
            await outbox.send(event)


async def _newest(api: Api) -> int:
    """The id of the newest event, found in steps that halve."""

    async def above(number: int) -> int | None:
        page = await api.control.events(after=number, limit=1)
        return page[0].id if page else None

    low, high = 0, 1
    while (found := await above(high)) is not None:
        low, high = found, 2 * found + 1
    while low < high:
        middle = (low + high) // 2
        found = await above(middle)
        low, high = (low, middle) if found is None else (found, high)
    return low


async def _ended(receive: Receive, scope: trio.CancelScope) -> None:
    """The client went away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _stopped(stopping: trio.Event, scope: trio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel()


async def _body(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


def frame(event: EventView) -> str:
    """An event on the wire; its data is one line, because JSON has no line ends in it."""
    data = as_json(EventView, event).decode()
    kind = json.dumps(event.kind)[1:-1]
    return f"id: {event.id}\nevent: {kind}\ndata: {data}\n\n"
