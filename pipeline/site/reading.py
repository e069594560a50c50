"""Objects on their way out: whole or a range, in pieces, so that none is held in memory."""

from __future__ import annotations

import re
from http import HTTPStatus

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline import logs
from pipeline.site.problems import HEADERS
from stages.errors import BackstayError, ObjectMissing
from stages.stage import crew
from stages.store.port import ObjectInfo, ObjectStore
from stages.store.site import protocol

PIECE = 1 << 20

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,19})?")


def missing(key: str) -> ObjectMissing:
    """What is told of an object that is not there."""
    return ObjectMissing("no such object", operation="get", subject=key)


def described(info: ObjectInfo) -> dict[str, str]:
    """Headers of an object, beside its length."""
    return {
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        protocol.MODIFIED_HEADER: repr(info.modified),
    }


def ranged(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; None for a header that asks for no such range (it
    counts as not there). A range without a byte of the object comes out empty."""
    match = _RANGE.fullmatch(header)
    if match is None:
        return None
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    behind = min(int(match[2]) + 1, size) if match[2] else size
    return first, max(first, behind)


class ObjectResponse(Response):
    """An object, or a part of it. If it cannot be read to the end the connection is closed, so that
    the client sees that it is not whole."""

    def __init__(self, store: ObjectStore, info: ObjectInfo, part: tuple[int, int] | None):
        self._store = store
        self._info = info
        self._first, self._behind = part if part is not None else (0, info.size)
        headers = HEADERS | described(info)
        status = HTTPStatus.OK
        if part is not None and self._first >= info.size:
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            headers["content-range"] = f"bytes */{info.size}"
            self._first = self._behind = 0
        elif part is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["content-range"] = f"bytes {self._first}-{self._behind - 1}/{info.size}"
        headers["content-length"] = str(self._behind - self._first)
        super().__init__(status_code=status, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send piece by piece."""
        begin = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(begin)
        async with crew() as nursery:
            nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
            try:
                await self._pieces(send)
            except BackstayError as error:  # what is not ended is closed by the server
                logs.warning("site.cut", f"an answer was cut off: {error}")
            nursery.cancel_scope.cancel()

    async def _pieces(self, send: Send) -> None:
        at = self._first
        while at < self._behind:
            wanted = min(PIECE, self._behind - at)
            data = await self._store.get(self._info.key, at, wanted)
            if len(data) != wanted:
                raise BackstayError("became shorter", operation="get", subject=self._info.key)
            at += wanted
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
