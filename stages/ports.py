"""The ports to the machine: clock, threads, randomness, files.

Nothing else in ``stages`` opens files, reads clocks, draws random bytes or starts threads; the
import linter says so. ``stages.system`` implements these for real; a simulation replaces them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeVar

Buffer = bytes | bytearray | memoryview

T = TypeVar("T")


class Clock(Protocol):
    """Time as the daemon sees it."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never steps back."""

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; may step."""

    async def sleep(self, seconds: float) -> None:
        """Wait, cancellably."""


class Offload(Protocol):
    """Runs calls that block or burn CPU away from the event loop.

    A hop costs 0.1 to 0.4 ms: hand over at least 256 KiB of work. The call is not abandoned on
    cancellation, so what it writes is complete when this returns or raises.
    """

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` on a worker and return what it returns."""

    def lock(self) -> AbstractContextManager[object]:
        """A lock between calls run here and the event loop; hold it for microseconds only."""


class Sync(Protocol):
    """Makes files durable without holding up the event loop. Not abandoned on cancellation, as
    with ``Offload``; errors are ``OSError``."""

    async def fdatasync(self, file: OpenFile) -> None:
        """``file.fdatasync()``."""

    async def append(self, file: OpenFile, parts: Sequence[Buffer]) -> None:
        """``file.append(parts)`` and then ``file.fdatasync()``."""


class Entropy(Protocol):
    """Cryptographic randomness."""

    def token(self, size: int) -> bytes:
        """Return ``size`` random bytes."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """What identifies a file and its last change (R6). Sizes in bytes, times in nanoseconds."""

    device: int
    inode: int
    size: int
    allocated: int
    mtime_ns: int
    ctime_ns: int
    is_file: bool
    is_block: bool
    is_dir: bool
    mode: int


class OpenFile(Protocol):
    """An open file or block device. All calls block; errors are ``OSError``."""

    path: str

    def fileno(self) -> int:
        """The descriptor, for sendfile and for passing on."""

    def pread(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; shorter only at the end of the file."""

    def pread_into(self, offset: int, target: memoryview) -> int:
        """Fill ``target`` from ``offset``; the count is short only at the end of the file."""

    def pread_now(self, offset: int, length: int) -> Buffer | None:
        """``length`` bytes if they are in the page cache, else None: never waits for a disk."""

    def fill_now(self, offset: int, target: memoryview) -> bool:
        """Like ``pread_now``, into ``target``; False if not all of it is there now."""

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write all of ``data`` or raise."""

    def append(self, parts: Sequence[Buffer]) -> None:
        """Write all parts behind what was appended before, or raise: at the end of a file opened
        to append, from the start of one opened to write."""

    def truncate(self, size: int) -> None:
        """Set the size."""

    def punch(self, offset: int, length: int) -> None:
        """Make a range read zeros: a hole in a file, zeroed blocks on a device."""

    def fsync(self) -> None:
        """Data and metadata are on stable storage when this returns."""

    def fdatasync(self) -> None:
        """Data is on stable storage when this returns."""

    def stat(self) -> FileStat:
        """Size and identity now. A block device's size is its capacity."""

    def next_data(self, offset: int) -> int | None:
        """First offset at or after ``offset`` that may hold data; None if only holes follow."""

    def next_hole(self, offset: int) -> int:
        """First offset at or after ``offset`` in a hole (the size, if there is none)."""

    def forget_cache(self) -> bool:
        """Drop what the kernel has cached of a block device; False if that is not permitted.

        A mounted file system writes past this cache, so reads through it could be stale.
        """

    def lock(self) -> bool:
        """Try to take an exclusive advisory lock, held until close; False if another has it."""

    def close(self) -> None:
        """Release the descriptor. Idempotent."""


class Files(Protocol):
    """The file system. Paths are strings; all calls block; errors are ``OSError``."""

    def open_read(self, path: str, *, exclusive: bool = False, direct: bool = False) -> OpenFile:
        """Open for reading. ``exclusive`` asks a block device for O_EXCL (not mounted).

        ``direct``: what is read need not stay in the page cache.
        """

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> OpenFile:
        """Open for reading and writing; ``new`` fails if the path exists. Mode 0600.

        ``exclusive`` asks a block device for O_EXCL (not mounted). ``direct``: what is written
        need not stay in the page cache. A new file that is appended to may, until it is truncated,
        be up to 4095 zeros longer than what was appended; ``pwrite`` takes whole 4096-byte blocks,
        best from memory of whole pages.
        """

    def open_append(self, path: str) -> OpenFile:
        """Open for appending, creating with mode 0600."""

    def scratch(self, directory: str | None = None) -> OpenFile:
        """An unlinked temporary file: it is gone when closed, whatever happens."""

    def read(self, path: str, limit: int) -> bytes:
        """The whole file; ``OSError`` EFBIG if it is larger than ``limit``."""

    def stat(self, path: str) -> FileStat | None:
        """Identity, or None if there is nothing at ``path``. Follows links."""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted; empty if there is no such directory."""

    def mkdir(self, path: str) -> None:
        """Create one directory, mode 0700; no error if it exists."""

    def link(self, source: str, target: str) -> bool:
        """Hard-link; False if ``target`` exists."""

    def rename(self, source: str, target: str) -> None:
        """Atomically replace ``target``."""

    def unlink(self, path: str) -> bool:
        """Remove a file; False if it was not there."""

    def rmdir(self, path: str) -> bool:
        """Remove an empty directory; False if it is absent or not empty."""

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    def free_bytes(self, path: str) -> int:
        """Bytes an ordinary user may still write on the file system of ``path``."""

    def mounted(self, path: str) -> str | None:
        """Where a block device (or a partition of it) is mounted or used as swap, else None."""


@dataclass(frozen=True, slots=True)
class Machine:
    """All ports of one machine, handed down from the composition root.

    ``network`` runs calls that wait for other machines, so that they take no place from those that
    do work here. Each has a time limit of its own: cancelled, it is left to that, and what it was
    given stays as it is until then. None: ``offload`` runs them too. ``environment``: variables
    that say who this is to others, where those are usual. ``sync``: None where threads do that.
    """

    clock: Clock
    offload: Offload
    entropy: Entropy
    files: Files
    network: Offload | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sync: Sync | None = None
