"""The port to the digests of what a vault holds (R3)."""

from __future__ import annotations

from typing import Protocol

from stages.model import U64


class Known(Protocol):
    """Digests of a vault's content at its committed position, by disk number.

    All calls are quick, synchronous, and made from worker threads, more than one at a time.

    Whoever settles a batch sets the digests of its blocks; makes unknown the digest of every chunk
    that it touches, but zero that of a chunk wholly inside a zero run; and last sets what
    ``Batch.chunk_digests`` says. So a chunk's digest is known only while every block of it is what
    the vault holds. That a block is known while an undelivered version of it is ahead in the
    stream must not happen (R3): a scan starts when everything before it is settled.
    """

    def blocks(self, disk: int, first: int, count: int) -> U64:
        """Digests (count, 2) of blocks; ``unknown`` and ``zero`` as in ``stages.model``."""

    def chunks(self, disk: int, first: int, count: int) -> U64:
        """Digests (count, 2) of chunks, ``unknown`` where any of its blocks is."""
