"""Files whose every operation goes through a function: to count, to fail, to stop at one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

import trio

from stages.ports import Buffer, Files, FileStat, Machine, OpenFile
from stages.system import SystemClock, SystemEntropy, SystemFiles

T = TypeVar("T")


class Around(Protocol):
    """Sees an operation and the path it works on; calls it, or not."""

    def __call__(self, name: str, path: str, call: Callable[[], T]) -> T: ...


@dataclass
class Tripwire:
    """The operation number ``at`` (from 0) fails with ``code``; if ``late``, after it was done."""

    at: int | None = None
    code: int = 0
    late: bool = False
    names: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    tripped: str = ""

    def __call__(self, name: str, path: str, call: Callable[[], T]) -> T:
        self.names.append(name)
        self.paths.append(path)
        if len(self.names) - 1 != self.at:
            return call()
        self.tripped = name
        if self.late or name == "close":  # a descriptor is gone even when close fails
            call()
        raise OSError(self.code, os.strerror(self.code), path)

    @property
    def steps(self) -> list[tuple[str, str]]:
        return list(zip(self.names, self.paths, strict=True))


def unsynced(name: str, path: str, call: Callable[[], T]) -> T:
    """Skip every fsync: for tests of many objects."""
    return cast("T", None) if name in ("fsync", "fdatasync", "sync_dir") else call()


class InlineOffload:
    """Runs calls at once, after a scheduling point."""

    async def run(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()


def machine(files: Files) -> Machine:
    """A machine with these files, everything in the event loop's thread."""
    return Machine(SystemClock(), InlineOffload(), SystemEntropy(), files)


class WatchedFile:
    def __init__(self, inner: OpenFile, around: Around):
        self.inner = inner
        self.path = inner.path
        self._around = around

    def _do(self, name: str, call: Callable[[], T]) -> T:
        return self._around(name, self.path, call)

    def fileno(self) -> int:
        return self.inner.fileno()

    def pread(self, offset: int, length: int) -> bytes:
        return self._do("pread", lambda: self.inner.pread(offset, length))

    def pread_into(self, offset: int, target: memoryview) -> int:
        return self._do("pread_into", lambda: self.inner.pread_into(offset, target))

    def pread_now(self, offset: int, length: int) -> Buffer | None:
        return self._do("pread_now", lambda: self.inner.pread_now(offset, length))

    def fill_now(self, offset: int, target: memoryview) -> bool:
        return self._do("fill_now", lambda: self.inner.fill_now(offset, target))

    def pwrite(self, offset: int, data: Buffer) -> None:
        self._do("pwrite", lambda: self.inner.pwrite(offset, data))

    def append(self, parts: Sequence[Buffer]) -> None:
        self._do("append", lambda: self.inner.append(parts))

    def truncate(self, size: int) -> None:
        self._do("truncate", lambda: self.inner.truncate(size))

    def punch(self, offset: int, length: int) -> None:
        self._do("punch", lambda: self.inner.punch(offset, length))

    def fsync(self) -> None:
        self._do("fsync", self.inner.fsync)

    def fdatasync(self) -> None:
        self._do("fdatasync", self.inner.fdatasync)

    def stat(self) -> FileStat:
        return self._do("fstat", self.inner.stat)

    def next_data(self, offset: int) -> int | None:
        return self._do("next_data", lambda: self.inner.next_data(offset))

    def next_hole(self, offset: int) -> int:
        return self._do("next_hole", lambda: self.inner.next_hole(offset))

    def forget_cache(self) -> bool:
        return self._do("forget_cache", self.inner.forget_cache)

    def lock(self) -> bool:
        return self._do("lock", self.inner.lock)

    def close(self) -> None:
        self._do("close", self.inner.close)


class WatchedFiles:
    def __init__(self, around: Around, inner: Files | None = None):
        self._files = inner or SystemFiles()
        self._around = around

    def _open(self, name: str, path: str, call: Callable[[], OpenFile]) -> OpenFile:
        return WatchedFile(self._around(name, path, call), self._around)

    def open_read(self, path: str, *, exclusive: bool = False, direct: bool = False) -> OpenFile:
        return self._open(
            "open_read",
            path,
            lambda: self._files.open_read(path, exclusive=exclusive, direct=direct),
        )

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> OpenFile:
        return self._open(
            "open_write",
            path,
            lambda: self._files.open_write(
                path, create=create, new=new, exclusive=exclusive, direct=direct
            ),
        )

    def open_append(self, path: str) -> OpenFile:
        return self._open("open_append", path, lambda: self._files.open_append(path))

    def scratch(self, directory: str | None = None) -> OpenFile:
        return self._open("scratch", directory or "", lambda: self._files.scratch(directory))

    def read(self, path: str, limit: int) -> bytes:
        return self._around("read", path, lambda: self._files.read(path, limit))

    def stat(self, path: str) -> FileStat | None:
        return self._around("stat", path, lambda: self._files.stat(path))

    def listdir(self, path: str) -> list[str]:
        return self._around("listdir", path, lambda: self._files.listdir(path))

    def mkdir(self, path: str) -> None:
        self._around("mkdir", path, lambda: self._files.mkdir(path))

    def link(self, source: str, target: str) -> bool:
        return self._around("link", target, lambda: self._files.link(source, target))

    def rename(self, source: str, target: str) -> None:
        self._around("rename", target, lambda: self._files.rename(source, target))

    def unlink(self, path: str) -> bool:
        return self._around("unlink", path, lambda: self._files.unlink(path))

    def rmdir(self, path: str) -> bool:
        return self._around("rmdir", path, lambda: self._files.rmdir(path))

    def sync_dir(self, path: str) -> None:
        self._around("sync_dir", path, lambda: self._files.sync_dir(path))

    def free_bytes(self, path: str) -> int:
        return self._files.free_bytes(path)

    def mounted(self, path: str) -> str | None:
        return self._files.mounted(path)
