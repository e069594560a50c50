"""What the server serves: a range of bytes with reads, and perhaps writes.

``DeviceInfo`` is all that the protocol without I/O knows of a device. A device raises ``OSError``
(with an errno) or ``BackstayError``; both become errors of the one request.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from stages import errors
from stages.nbd import wire
from stages.ports import Buffer, OpenFile


@dataclass(frozen=True, slots=True)
class DeviceFlags:
    """What a device can do beyond reading.

    ``multi_conn``: a flush on one connection covers the writes completed on all of them.
    """

    flush: bool = False
    fua: bool = False
    trim: bool = False
    write_zeroes: bool = False
    multi_conn: bool = False


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """Bytes: requests must be multiples of ``minimum``, run best at ``preferred``."""

    minimum: int = 1
    preferred: int = 4096
    maximum: int = wire.MAX_PAYLOAD

    def __post_init__(self) -> None:
        low, best, high = self.minimum, self.preferred, self.maximum
        powers = low > 0 and not low & (low - 1) and best > 0 and not best & (best - 1)
        if not (powers and low <= 65536 and low <= best and max(512, low) <= best):
            raise ValueError(f"block sizes {low}, {best}: powers of two, preferred at least 512")
        if not best <= high <= wire.MAX_PAYLOAD or high % low:
            raise ValueError(f"largest request {high}: at most {wire.MAX_PAYLOAD}")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The face of a device. ``size`` in bytes need not be a multiple of anything."""

    name: str
    size: int
    description: str = ""
    read_only: bool = True
    flags: DeviceFlags = field(default_factory=DeviceFlags)
    blocks: BlockSizes = field(default_factory=BlockSizes)

    def __post_init__(self) -> None:
        for text in (self.name, self.description):
            if len(text.encode()) > wire.MAX_STRING or "\0" in text:
                raise ValueError(f"more than {wire.MAX_STRING} bytes, or a NUL: {text[:40]!r}")
        if not 0 <= self.size <= wire.MAX_SIZE or self.size % self.blocks.minimum:
            raise ValueError(f"size {self.size}: negative, too large or not whole blocks")


class Extent(NamedTuple):
    """``length`` bytes of one kind; ``flags`` of ``wire.STATE_HOLE`` and ``STATE_ZERO``."""

    length: int
    flags: int


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of an open file, sent without passing through this process (sendfile).

    For ranges known to be in the page cache: a cold page blocks the event loop.
    """

    file: OpenFile
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


Part: TypeAlias = Buffer | FileRange


class Device(Protocol):
    """A block device. Ranges lie inside the size and are at most ``blocks.maximum`` long for reads
    and writes, up to 4 GiB for the others; their length is never 0.

    Calls may run concurrently, also on overlapping ranges, in any order. A call that returned is
    seen by every later one.
    """

    @property
    def info(self) -> DeviceInfo:
        """The same object for the life of the device."""

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        """Parts that joined are ``length`` bytes; they must not change before they are sent."""

    async def write(self, offset: int, data: memoryview, fua: bool) -> None:
        """Write; durable on return if ``fua``. ``data`` is valid until this returns."""

    async def flush(self) -> None:
        """Every write that returned before this call is durable on return."""

    async def trim(self, offset: int, length: int, fua: bool) -> None:
        """The content is not needed any more."""

    async def zero(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        """Make the range read zeros; with ``no_hole`` keep space allocated for it."""

    async def extents(self, offset: int, length: int) -> list[Extent]:
        """Consecutive extents from ``offset``: at least one, at most to the end of the range."""


EXPECTED = (OSError, errors.BackstayError, MemoryError)
"""What a device may raise: errors of one request."""

_OF_ERRNO = {
    errno.EPERM: wire.EPERM,
    errno.EACCES: wire.EPERM,
    errno.EROFS: wire.EPERM,
    errno.ENOMEM: wire.ENOMEM,
    errno.EINVAL: wire.EINVAL,
    errno.ENOSPC: wire.ENOSPC,
    errno.EDQUOT: wire.ENOSPC,
    errno.EFBIG: wire.ENOSPC,
    errno.EOVERFLOW: wire.EOVERFLOW,
    errno.EOPNOTSUPP: wire.ENOTSUP,
    errno.ESHUTDOWN: wire.ESHUTDOWN,
}
_OF_CLASS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NoSpace, wire.ENOSPC),
    (errors.OutOfMemory, wire.ENOMEM),
    (MemoryError, wire.ENOMEM),
    (errors.UsageError, wire.EINVAL),
    (errors.IllegalOperation, wire.EPERM),
    (errors.Fenced, wire.EPERM),
)


def error_code(error: BaseException) -> int:
    """The NBD error for what a device raised; EIO for everything without a better one."""
    if isinstance(error, OSError):
        return _OF_ERRNO.get(error.errno or 0, wire.EIO)
    for kind, code in _OF_CLASS:
        if isinstance(error, kind):
            return code
    return wire.EIO
