"""A store in a directory: an object is a file, its key the path below the root.

An object is written to a temporary in ``<root>/.tmp``, synced, hard-linked to its name (create-only
and atomic) and the directory synced. Only ``create_root`` makes the root: when a mount has gone,
its empty mount point has no ``.tmp``, so puts fail there, and reads do not take it for an empty
store.

One Offload hop a call. A call that has begun is not abandoned on cancellation, so a cancelled put
has either happened or not begun.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from stages import durable
from stages.errors import BackstayError, ObjectMissing, OutcomeUnknown, StoreUnreachable
from stages.ports import Buffer, FileStat, Machine
from stages.store.oserrors import explain
from stages.store.port import PAGE, ObjectInfo, Put, check_key, check_limit, check_range
from stages.store.tree import objects

T = TypeVar("T")

TEMP_FOLDER = ".tmp"
TEMP_AGE = 86_400  # seconds after which nobody is writing a temporary any more
_KNOWN_LIMIT = 4096  # folders remembered as durable
_ATTEMPTS = 8  # puts that lose their folder to a concurrent delete


class FileStore:
    """Objects as files below ``root``, of mode 0600 in folders of mode 0700.

    Several processes may share a root. One gap is known: a folder that another process removes as
    empty, and a third makes again and dies before syncing its name, can be lost with a put of this
    one, on file systems where syncing a folder does not sync its name (none of the usual ones).
    """

    def __init__(self, root: str, machine: Machine):
        self._root = root.rstrip("/")
        self._temp = f"{self._root}/{TEMP_FOLDER}"
        self.url = f"file:{self._root}"
        self._files = machine.files
        self._offload = machine.offload
        self._entropy = machine.entropy
        self._known: set[str] = set()
        self._removals_begun = self._removals_ended = 0  # changed on the event loop only

    async def create_root(self) -> None:
        """Make the root and its folder for temporaries, durably. No error if they exist."""
        await self._run("create the store", self._root, self._create_root)

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create ``key``, durable on return, unless it exists."""
        path = self._path(key)
        token = self._entropy.token(16).hex()
        created = await self._run("put", key, lambda: self._put(key, path, parts, token))
        return Put.CREATED if created else Put.EXISTS

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset``, fewer where the object ends before."""
        path = self._path(key)
        check_range(offset, length)
        data = await self._run("get", key, lambda: self._get(path, offset, length))
        if data is None:
            raise ObjectMissing("no such object", operation="get", subject=key)
        return data

    async def info(self, key: str) -> ObjectInfo | None:
        """Size and age, or None."""
        path = self._path(key)
        found = await self._run("info", key, lambda: self._stat(path))
        return _info(key, found) if found else None

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Up to ``limit`` objects under ``prefix`` after ``after``, in order of the keys."""
        check_limit(limit)
        return await self._run("list", prefix, lambda: self._page(prefix, after, limit))

    async def delete(self, key: str) -> bool:
        """Remove durably, with the folders that this empties; False if it was not there."""
        path = self._path(key)
        self._removals_begun += 1
        try:
            return await self._run("delete", key, lambda: self._delete(path))
        finally:
            self._removals_ended += 1

    async def overwrite(self, key: str, data: Buffer) -> None:
        """Write over what ``key`` holds, in place: only to find out whether that is permitted."""
        path = self._path(key)
        await self._run("overwrite", key, lambda: self._overwrite(path, data))

    async def sweep(self) -> int:
        """Remove the temporaries that killed puts left a day ago or earlier; return how many."""
        token = self._entropy.token(16).hex()
        return await self._run("sweep", self._temp, lambda: self._sweep(token))

    async def aclose(self) -> None:
        """Nothing to release."""

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    async def _run(self, operation: str, subject: str, call: Callable[[], T]) -> T:
        try:
            return await self._offload.run(call)
        except OSError as error:
            raise explain(error, operation, subject, self._root) from error

    def _create_root(self) -> None:
        durable.make_dirs(self._files, self._root)
        durable.make_dirs_below(self._files, self._root, self._temp, set())

    def _put(self, key: str, path: str, parts: Sequence[Buffer], token: str) -> bool:
        try:
            self._require_writable()
            created = self._create(path, parts, token)
        except (NotADirectoryError, FileExistsError) as error:
            raise ValueError(f"an object is a folder of this key: {key!r}") from error
        except OSError as error:
            raise self._put_failed(key, path, error) from error
        if not created and (found := self._files.stat(path)) and found.is_dir:
            raise ValueError(f"this key is a folder of objects: {key!r}")
        return created

    def _create(self, path: str, parts: Sequence[Buffer], token: str) -> bool:
        folder = durable.parent(path)
        for attempt in range(_ATTEMPTS):
            removals = self._removals_ended
            try:
                self._make_folders(folder)
                created = durable.create(
                    self._files, path, parts, temp_dir=self._temp, token=f"{token}{attempt}"
                )
            except FileNotFoundError:
                self._require_writable()
                self._forget(folder)
                continue
            if removals != self._removals_begun:
                self._sync_folders(folder)
            return created
        raise OSError(errno.EAGAIN, "its folder is removed again and again", folder)

    def _sync_folders(self, folder: str) -> None:
        """A delete ran beside this put: it may have removed a folder on the way, and another put
        may have made it again and not synced its name yet.
        """
        try:
            durable.make_dirs_below(self._files, self._root, folder, set())
        except FileNotFoundError:
            self._require_writable()  # if only the folder has gone, the object was deleted with it

    def _put_failed(self, key: str, path: str, error: OSError) -> BackstayError:
        """A failure with a cause of its own kind; trouble is unknown if the object may be there."""
        failure = explain(error, "put", key, self._root)
        if type(failure) is not StoreUnreachable:
            return failure
        with suppress(OSError):
            if self._files.stat(path) is None:
                return failure
        return OutcomeUnknown(
            f"{failure.message}: it may or may not be stored",
            operation="put",
            subject=key,
            hint=failure.hint,
        )

    def _get(self, path: str, offset: int, length: int | None) -> bytes | None:
        if self._stat(path) is None:  # a folder, a pipe: nothing to open
            return None
        try:
            file = self._files.open_read(path)
        except FileNotFoundError:
            return None
        try:
            rest = max(0, file.stat().size - offset)
            wanted = rest if length is None else min(rest, length)
            return file.pread(offset, wanted) if wanted else b""
        finally:
            file.close()

    def _stat(self, path: str) -> FileStat | None:
        found = self._files.stat(path)
        if found is not None and found.is_file:
            return found
        self._require_readable()
        return None

    def _page(self, prefix: str, after: str, limit: int) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        for key, stat in objects(self._files, self._root, prefix, after):
            found.append(_info(key, stat))
            if len(found) == limit:
                break
        self._require_readable()
        return found

    def _overwrite(self, path: str, data: Buffer) -> None:
        file = self._files.open_write(path)
        try:
            file.pwrite(0, data)
            file.truncate(memoryview(data).nbytes)
        finally:
            file.close()

    def _delete(self, path: str) -> bool:
        try:
            removed = durable.remove(self._files, path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            removed = False  # no such folder, or it is one
        if not removed:
            self._require_readable()
        folder = durable.parent(path)
        with suppress(OSError):  # empty folders harm nobody, and the object is gone
            while folder != self._root:
                self._known.discard(folder)  # first: a put must not rely on what goes away
                if not self._files.rmdir(folder):
                    break
                folder = durable.parent(folder)
        return removed

    def _sweep(self, token: str) -> int:
        probe = f"{self._temp}/{durable.TEMP_MARK}{token}"
        file = self._files.open_write(probe, new=True)
        try:
            now = file.stat().mtime_ns  # by the clock of the file system, which dates them all
        finally:
            file.close()
            self._files.unlink(probe)
        swept = 0
        for name in self._files.listdir(self._temp):
            path = f"{self._temp}/{name}"
            found = self._files.stat(path) if name.startswith(durable.TEMP_MARK) else None
            if found is not None and now - found.mtime_ns > TEMP_AGE * 1_000_000_000:
                swept += self._files.unlink(path)
        return swept

    def _make_folders(self, folder: str) -> None:
        if folder in self._known or folder == self._root:
            return
        if len(self._known) > _KNOWN_LIMIT:
            self._known.clear()
        durable.make_dirs_below(self._files, self._root, folder, self._known)

    def _forget(self, folder: str) -> None:
        while folder != self._root:
            self._known.discard(folder)
            folder = durable.parent(folder)

    def _require_writable(self) -> None:
        if self._files.stat(self._temp) is None:
            raise FileNotFoundError(errno.ENOENT, "is no store, or its mount has gone", self._root)

    def _require_readable(self) -> None:
        """Nothing is missing as long as the root is: raise if it has gone or is quite empty."""
        if self._files.stat(self._temp) is None and not self._files.listdir(self._root):
            raise FileNotFoundError(errno.ENOENT, "is no store, or its mount has gone", self._root)


def _info(key: str, found: FileStat) -> ObjectInfo:
    return ObjectInfo(key, found.size, found.mtime_ns / 1e9)
