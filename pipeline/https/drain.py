"""A body that nobody reads any more, because its request is refused, must not block the answer.

The server stops reading a connection whose request is not taken in, and a client that is still
sending does not read: each would wait for the other.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

import h11
import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from stages.stage import crew

_LINGER_SECONDS = 2.0  # for the rest of a body, before the connection is closed over it

Message = MutableMapping[str, Any]


class Drained:
    """Wraps an application. ``no_body`` makes the answer to a request whose method has none."""

    def __init__(self, app: ASGIApp, no_body: Callable[[], ASGIApp]):
        self._app = app
        self._no_body = no_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; what is left of its body is thrown away meanwhile."""
        if scope["type"] == "websocket":  # there are none
            with suppress(h11.ProtocolError):  # what asks for one may be broken besides
                await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        refused = scope["method"] in ("GET", "HEAD")
        app = self._no_body() if refused else self._app
        ended = trio.Event()

        async def listen() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                ended.set()
            return message

        async def drain() -> None:
            while not ended.is_set():
                await listen()

        async with crew() as nursery:
            begun = False

            async def answer(message: Message) -> None:
                nonlocal begun
                if not begun and not ended.is_set():
                    nursery.start_soon(drain)
                    with trio.move_on_after(_LINGER_SECONDS):
                        await ended.wait()
                begun = True
                await send(message)

            await app(scope, listen, answer)
            nursery.cancel_scope.cancel()


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
