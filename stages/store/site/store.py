"""A vault at a second site, as an object store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from stages.errors import BackstayError, ObjectMissing, StoreUnreachable
from stages.ports import Buffer, Machine
from stages.store.port import PAGE, ObjectInfo, Put, check_key, check_limit, check_range
from stages.store.site import protocol
from stages.store.site.address import Site
from stages.store.site.connection import Ask, Heard
from stages.store.site.pool import Pool
from stages.store.site.trouble import NoAnswer, no_site, of_answer, of_network

_MOST = 1 << 30  # bytes of an object that is asked for whole
_LIST = 2 << 20  # bytes of a page: 1000 keys of 512
_LARGE = 256 << 10  # bytes from which a thread computes the digest


class SiteStore:
    """One vault of a ``backstay site``. Every wait ends after ``site.timeout`` without progress.

    What the site, or the network, says in other words than the port's becomes one of its errors;
    certificates that one side does not trust are ``StoreDenied``.
    """

    def __init__(self, site: Site, ports: Machine):
        self.url = site.url
        self._vault = site.vault
        self._pool = Pool(site, ports)
        self._offload = ports.offload

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create ``key``; the site checks the digest and has it on stable storage on return."""
        target = self._object(key)
        size = sum(memoryview(part).nbytes for part in parts)
        if size < _LARGE:
            found = protocol.Digester(parts).header()
        else:
            found = await self._offload.run(lambda: protocol.Digester(parts).header())
        headers = (
            ("if-none-match", "*"),
            (protocol.DIGEST_HEADER, found),
        )
        heard = await self._ask(Ask("PUT", target, headers, parts, size), "put")
        if heard.status == 412:
            return Put.EXISTS
        self._require(heard, (201,), "put", key)
        return Put.CREATED

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset``, fewer where the object ends before."""
        target = self._object(key)
        check_range(offset, length)
        if length == 0:
            if await self.info(key) is None:
                raise ObjectMissing("no such object", operation="get", subject=key)
            return b""
        whole = offset == 0 and length is None
        headers = () if whole else (("range", protocol.byte_range(offset, length)),)
        most = _MOST if length is None else min(length, _MOST)
        ask = Ask("GET", target, headers, most=max(most, _LIST))
        heard = await self._ask(ask, "get", again=True)
        if heard.status == 416:
            return b""
        self._require(heard, (200 if whole else 206,), "get", key)
        if length is not None and len(heard.body) > length:
            raise self._odd("longer than what was asked for", "get")
        return heard.body

    async def info(self, key: str) -> ObjectInfo | None:
        """Size and age, or None."""
        heard = await self._ask(Ask("HEAD", self._object(key)), "info", again=True)
        if _is_missing(heard):
            return None
        if heard.status != 200:  # an answer to HEAD has no body that says why
            first = (("range", protocol.byte_range(0, 1)),)
            told = await self._ask(Ask("GET", self._object(key), first), "info", again=True)
            self._require(told, (200, 206, 416), "info", key)
        self._require(heard, (200,), "info", key)
        try:
            size = int(heard.headers["content-length"])
            return ObjectInfo(key, size, float(heard.headers[protocol.MODIFIED_HEADER]))
        except (KeyError, ValueError):
            raise self._odd("without size or time", "info") from None

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Up to ``limit`` objects under ``prefix`` after ``after``, in order of the keys."""
        check_limit(limit)
        found: list[ObjectInfo] = []
        while True:
            wanted = min(protocol.PAGE, limit - len(found))
            target = protocol.listing(self._vault, prefix, after, wanted)
            heard = await self._ask(Ask("GET", target, most=_LIST), "list", again=True)
            self._require(heard, (200,), "list", prefix)
            objects, more = self._listed(heard.body)
            found += objects
            if not more or not objects or len(found) >= limit:
                return found[:limit]
            after = found[-1].key

    async def delete(self, key: str) -> bool:
        """Remove; False if it was not there. The site lets operators only."""
        heard = await self._ask(Ask("DELETE", self._object(key)), "delete")
        if _is_missing(heard):
            return False
        self._require(heard, (204,), "delete", key)
        return True

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._pool.aclose()

    def _object(self, key: str) -> str:
        return f"{protocol.collection(self._vault)}/{quote(check_key(key))}"

    async def _ask(self, ask: Ask, operation: str, *, again: bool = False) -> Heard:
        try:
            heard = await self._pool.exchange(ask, again=again)
        except NoAnswer as lost:
            put = operation == "put" and lost.sent
            raise of_network(lost.cause, self.url, operation, put=put) from lost.cause
        if protocol.VERSION_HEADER not in heard.headers:
            raise no_site(heard.status, self.url, operation)
        return heard

    def _require(
        self, heard: Heard, statuses: tuple[int, ...], operation: str, subject: str
    ) -> None:
        if heard.status not in statuses:
            raise of_answer(heard.status, heard.headers, heard.body, operation, subject)

    def _listed(self, body: bytes) -> tuple[list[ObjectInfo], bool]:
        try:
            fields = json.loads(body)
            objects = [
                ObjectInfo(check_key(key), int(size), float(modified))
                for key, size, modified in fields["objects"]
            ]
            return objects, bool(fields["more"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._odd("that is no list of objects", "list") from None

    def _odd(self, what: str, operation: str) -> BackstayError:
        return StoreUnreachable(
            f"the site gave an answer {what}",
            operation=operation,
            subject=self.url,
            hint="does a proxy in between change it?",
        )


def _is_missing(heard: Heard) -> bool:
    return heard.status == 404 and heard.headers.get(protocol.ERROR_HEADER) == "ObjectMissing"
