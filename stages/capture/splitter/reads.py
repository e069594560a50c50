"""The short way of the other common requests: reads that the page cache answers.

Content comes to lie where it is sent from, and no object is made for it. What is not in the cache,
or large, or has no place among the answers, is left to the long way.
"""

from __future__ import annotations

from stages.capture.splitter.disk import LiveDisk
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.replies import ReadSink

LARGEST = 64 << 10  # bytes: reads up to here are copied, larger ones sent from the file
_HEADER = wire.REQUEST.size


class Reads:
    """Of one disk."""

    def __init__(self, disk: LiveDisk):
        self._disk = disk

    def answered(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReadSink
    ) -> tuple[int, int]:
        """Answer up to ``most`` reads that stand in ``buffer`` from ``at``, whole before ``end``.
        Returns where the first stands that is left, and how many were answered."""
        unpack, view = wire.REQUEST.unpack_from, buffer.view
        size, fill = self._disk.size, self._disk.source.file.fill_now
        count = 0
        while count < most and end - at >= _HEADER:
            magic, flags, command, cookie, offset, length = unpack(view, at)
            if command != wire.CMD_READ or flags or magic != wire.REQUEST_MAGIC:
                break
            if not 0 < length <= LARGEST or offset + length > size:
                break
            place = replies.place(length)
            if place is None:
                break
            try:
                if not fill(offset, place):
                    break
            except OSError:  # the long way finds out, and says so
                break
            replies.keep(cookie, offset, length)
            at += _HEADER
            count += 1
        return at, count
