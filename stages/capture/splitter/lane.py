"""The short way of the commonest requests: whole-block writes that have nothing to wait for.

``SplitHandler`` executes any batch; what it may have to wait for on behalf of a write is looked at
here without waiting. Nearly always it is all there, and the writes need no more than their parsing,
their pwrites and a place in the stream. Where anything is missing, they are left to the long way.
"""

from __future__ import annotations

from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.plain import entry_size
from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Request
from stages.stream import REGION

_HEADER = wire.REQUEST.size
_ODD = BLOCK - 1
_SHIFT = REGION.bit_length() - 1


class Lane:
    """Of one disk, whose requests carry at most ``largest`` bytes."""

    def __init__(self, disk: LiveDisk, largest: int):
        self._disk = disk
        self._largest = largest

    def admitted(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int
    ) -> tuple[list[Request], int] | None:
        """Up to ``most`` writes that stand in ``buffer`` from ``at`` on, whole before ``end``, and
        the credit that is reserved for their entry. None if even the first has to wait, or is
        something else.

        Their regions are hot, and touched; they may be carried out until the next await (R4).
        """
        disk, gate = self._disk, self._disk.gate
        if gate.tracking or gate.switching or disk.locks.busy or disk.pwrites.throttled:
            return None
        written, stream = gate.activity.written[disk.number], gate.stream
        writes: list[Request] = []
        regions: list[int] = []
        unpack, view, size, largest = (
            wire.REQUEST.unpack_from,
            buffer.view,
            disk.size,
            self._largest,
        )
        while len(writes) < most and end - at >= _HEADER:
            magic, flags, command, cookie, offset, length = unpack(view, at)
            start = at + _HEADER
            at = start + length
            if command != wire.CMD_WRITE or flags or magic != wire.REQUEST_MAGIC or at > end:
                break
            if not 0 < length <= largest or (offset | length) & _ODD or offset + length > size:
                break
            region, last = offset >> _SHIFT, (offset + length - 1) >> _SHIFT
            if region == last:
                if not written[region]:
                    break
                regions.append(region)
            else:
                touched = range(region, last + 1)
                if not all(written[region] for region in touched):
                    break
                regions += touched
            writes.append(Request(command, flags, cookie, offset, length, view[start:at], start))
        if not writes:
            return None
        credit = entry_size(writes)
        if stream.retained + credit > gate.limit or not stream.try_reserve(credit):
            return None
        now = gate.activity.generation
        for region in regions:
            written[region] = now
        return writes, credit
