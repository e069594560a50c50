"""A store in a bucket or container, over obstore's blocking calls in threads of the network port.

Every call is one request (two where a size has to be found first), never repeated here, with a time
limit that grows with what it moves. No object is put in parts: create-only and parts do not go
together on all clouds, and the largest object of a vault is below ``MAX_OBJECT``, a fraction of
what one put may carry (5 GiB on S3, 5,000 MiB on Azure).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError

from stages.errors import (
    BackstayError,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from stages.ports import Buffer, Machine
from stages.store.cloud.clients import Clients
from stages.store.cloud.errors import TAKEN, Failure, explain
from stages.store.cloud.settings import Settings
from stages.store.port import PAGE, ObjectInfo, Put, check_key, check_limit, check_range

T = TypeVar("T")

MAX_OBJECT = 1 << 30  # bytes
_FIRST_READ = 1 << 20  # bytes of an object whose size is not known
_LISTED = 1000  # objects of one answer
_WORD = r"[a-z0-9_-][a-z0-9._-]*"
_PATH = re.compile(rf"{_WORD}(/{_WORD})*")
_BEYOND = re.compile(r'StartTooLarge|ParseContentRange {\s+value: "[^"]*/0"')
# Besides its own classes obstore raises these, of a lost connection and of paths.
_FAILURES = (BaseError, OSError, NotImplementedError)


class CloudStore:
    """Objects below a prefix of a bucket. ``url`` is the address with its options."""

    def __init__(self, url: str, settings: Settings, machine: Machine):
        self.url = url
        self._settings = settings
        self._clients = Clients(settings, machine)
        self._threads = machine.network or machine.offload
        self._base = f"{settings.prefix}/" if settings.prefix else ""

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create ``key`` unless it exists, durable when the cloud says so."""
        data = _kept(parts)
        size = sum(map(len, data))
        if size > MAX_OBJECT:
            raise ValueError(f"an object of {size} bytes: {MAX_OBJECT} at most")
        path = self._path(key)
        try:
            await self._run("put", key, lambda: self._put(path, data, size, "create"))
        except _Taken:
            return Put.EXISTS
        except StoreDenied:
            # Where overwriting is not permitted, some stores say so before they look.
            if await self._is_there(key):
                return Put.EXISTS
            raise
        return Put.CREATED

    async def overwrite(self, key: str, data: Buffer) -> None:
        """Replace or make ``key``."""
        path = self._path(key)
        whole = bytes(data)
        await self._run("overwrite", key, lambda: self._put(path, [whole], len(whole), "overwrite"))

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset``, fewer where the object ends before."""
        path = self._path(key)
        check_range(offset, length)
        if length == 0:
            await self._run("get", key, lambda: self._look(path))
            return b""
        return await self._run("get", key, lambda: self._get(path, offset, length))

    async def info(self, key: str) -> ObjectInfo | None:
        """Size and age, or None."""
        path = self._path(key)
        try:
            size, modified = await self._run("info", key, lambda: self._look(path))
        except ObjectMissing:
            return None
        return ObjectInfo(key, size, modified)

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Up to ``limit`` objects under ``prefix`` after ``after``, in order of the keys."""
        check_limit(limit)
        folder, slash, stem = prefix.rpartition("/")
        try:
            if slash:
                check_key(folder)
        except ValueError:
            return []
        if stem and _PATH.fullmatch(stem) is None:
            return []
        return await self._run("list", prefix, lambda: self._page(folder, prefix, after, limit))

    async def delete(self, key: str) -> bool:
        """Remove; False if it was not there. S3 does not say, so it is looked for before."""
        path = self._path(key)
        try:
            await self._run("delete", key, lambda: self._delete(path))
        except ObjectMissing:
            return False
        return True

    async def aclose(self) -> None:
        """Forget the connections."""
        self._clients.close()

    def _path(self, key: str) -> str:
        return f"{self._base}{check_key(key)}"

    async def _run(self, operation: str, subject: str, call: Callable[[], T]) -> T:
        try:
            return await self._threads.run(call)
        except _FAILURES as error:
            failure = Failure.of(error)
        if operation == "put" and (failure.status == 412 or failure.code in TAKEN):
            raise _Taken
        if self._clients.trouble is not None and not failure.status:
            raise self._clients.trouble
        raise explain(failure, self._settings, operation, subject) from None

    async def _is_there(self, key: str) -> bool:
        try:
            return await self.info(key) is not None
        except BackstayError:
            return False

    def _put(self, path: str, data: list[bytes], size: int, mode: str) -> None:
        client = self._clients.of(size)
        obstore.put(client, path, data, mode=mode, use_multipart=False)  # type: ignore[arg-type]

    def _look(self, path: str) -> tuple[int, float]:
        """Size and age. By a get, whose answer, unlike a head's, says what is missing."""
        try:
            found = obstore.get(self._clients.of(1), path, options={"range": (0, 1)})
            meta = found.meta
        except _FAILURES as error:
            if not _beyond(Failure.of(error)):
                raise
            meta = obstore.head(self._clients.of(1), path)  # it is empty
        return meta["size"], meta["last_modified"].timestamp()

    def _get(self, path: str, offset: int, length: int | None) -> bytes:
        if length is not None:
            return self._range(path, offset, length)[0]
        first, size = self._range(path, offset, _FIRST_READ)
        rest = size - offset - len(first)
        if rest <= 0:
            return first
        return first + self._range(path, offset + len(first), rest)[0]

    def _range(self, path: str, offset: int, length: int) -> tuple[bytes, int]:
        """The bytes, and the size of the whole object (0 if the range begins behind its end)."""
        client = self._clients.of(min(length, MAX_OBJECT))
        try:
            found = obstore.get(client, path, options={"range": (offset, offset + length)})
            size = found.meta["size"]
            wanted = min(length, size - offset)
            data = found.bytes().to_bytes()
        except _FAILURES as error:
            if _beyond(Failure.of(error)):
                return b"", 0
            raise
        if len(data) != wanted:
            raise StoreUnreachable(
                f"{len(data)} of {wanted} bytes came",
                operation="get",
                subject=path.removeprefix(self._base),
                hint="a server or proxy on the way cuts answers; it is tried again",
            )
        return data, size

    def _page(self, folder: str, prefix: str, after: str, limit: int) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        skip = len(self._base)
        place = f"{self._base}{folder}".rstrip("/")
        listing = obstore.list(
            self._clients.of(1),
            place or None,
            offset=self._offset(after, prefix),
            chunk_size=min(limit, _LISTED),
        )
        last = ""
        for chunk in listing:
            for meta in chunk:
                key = meta["path"][skip:]
                if key <= last:
                    raise StoreError(
                        "the store does not list in order of the keys",
                        operation="list",
                        subject=prefix,
                        hint="it cannot hold a vault",
                    )
                last = key
                if key[: len(prefix)] > prefix or len(found) == limit:
                    return found
                if key > after and key.startswith(prefix) and _is_key(key):
                    info = ObjectInfo(key, meta["size"], meta["last_modified"].timestamp())
                    found.append(info)
        return found

    def _offset(self, after: str, prefix: str) -> str | None:
        """A path before all that is asked for, so that the server skips most of the rest."""
        folder, _, stem = prefix.rpartition("/")
        before = prefix[:-1] if len(stem) > 1 else folder
        lower = max(after if _PATH.fullmatch(after) else "", before)
        if lower == folder:
            return None
        return f"{self._base}{lower}"

    def _delete(self, path: str) -> None:
        client = self._clients.of(1)
        if self._settings.scheme == "s3":
            self._look(path)
        obstore.delete(client, path)


class _Taken(Exception):
    """The place of a create-only put is taken."""


def _kept(parts: Sequence[Buffer]) -> list[bytes]:
    """What nobody changes: a put that nobody waits for any more goes on reading it. Frames are
    never joined, which would take as much memory, and time, again."""
    return [part if isinstance(part, bytes) else bytes(part) for part in parts]


def _beyond(failure: Failure) -> bool:
    """The range begins behind the object's end (Azurite answers with what is none)."""
    return failure.status == 416 or _BEYOND.search(failure.text) is not None


def _is_key(key: str) -> bool:
    try:
        check_key(key)
    except ValueError:
        return False
    return True
