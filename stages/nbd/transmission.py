"""Requests out of a byte stream, and the rules that each must keep. Without I/O.

The parser works in a buffer that the owner receives into, and hands out all complete requests of it
at once; write payloads are slices of the buffer. No byte is moved more than twice: a request that
does not fit into the rest of the buffer moves to the front, or to the next buffer, once. Payloads
of refused writes are skipped as they come.
"""

from __future__ import annotations

from typing import NamedTuple

from stages.errors import ProtocolError
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.device import DeviceInfo

_HEADER = wire.REQUEST.size
_MIN_ROOM = 16 << 10  # do not receive into less than this
_NOTHING = memoryview(b"")


class Request(NamedTuple):
    """One valid request. A tuple, because one is made for every 4 KiB a guest writes.

    ``payload`` is a slice of the batch's buffer, ``at`` where in the buffer it starts.
    """

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: memoryview
    at: int


class Refusal(NamedTuple):
    """A request that is answered with an error and not executed."""

    cookie: int
    error: int
    reason: str


class Batch(NamedTuple):
    """All complete requests of one receive, in order, and what was refused among them.

    Payloads live in ``buffer`` and are valid until ``execute`` returns; hold the buffer to keep
    them longer. ``held_bytes`` is what executing and answering keeps in memory.
    """

    requests: list[Request]
    refusals: list[Refusal]
    buffer: ReceiveBuffer
    held_bytes: int
    read_bytes: int


class Rules:
    """What one connection may ask of its export."""

    def __init__(self, info: DeviceInfo, *, structured: bool, allocation: bool):
        self.structured = structured
        self.allocation = allocation
        self._size = info.size
        self._mask = info.blocks.minimum - 1
        self._largest = info.blocks.maximum
        self._read_only = info.read_only
        can = info.flags
        fua = wire.FLAG_FUA if can.fua and not info.read_only else 0
        zero_flags = fua | wire.FLAG_NO_HOLE | wire.FLAG_FAST_ZERO
        allowed = {wire.CMD_READ: fua | (wire.FLAG_DF if structured else 0), wire.CMD_WRITE: fua}
        if can.flush:
            allowed[wire.CMD_FLUSH] = fua
        if can.trim or info.read_only:  # read-only is said before unsupported
            allowed[wire.CMD_TRIM] = fua
        if can.write_zeroes or info.read_only:
            allowed[wire.CMD_WRITE_ZEROES] = zero_flags
        if allocation:
            allowed[wire.CMD_BLOCK_STATUS] = fua | wire.FLAG_REQ_ONE
        self._allowed = allowed

    def refuse(self, command: int, flags: int, offset: int, length: int) -> tuple[int, str] | None:
        """The error and its reason, or None if the request may be executed."""
        allowed = self._allowed.get(command)
        if allowed is None:
            return wire.EINVAL, f"command {command} is not supported"
        if self._read_only and command in _MUTATIONS:
            return wire.EPERM, "the export is read-only"
        if flags & ~allowed:
            return wire.EINVAL, f"flags {flags:#x} do not go with command {command}"
        if command == wire.CMD_FLUSH:
            return (wire.EINVAL, "a flush has no range") if offset or length else None
        if offset + length > self._size:
            full = command in (wire.CMD_WRITE, wire.CMD_WRITE_ZEROES)
            return wire.ENOSPC if full else wire.EINVAL, "beyond the end of the export"
        if not length or (offset | length) & self._mask:
            return wire.EINVAL, "empty, or not whole blocks"
        if length > self._largest and command in (wire.CMD_READ, wire.CMD_WRITE):
            return wire.EINVAL, f"more than {self._largest} bytes"
        if flags & wire.FLAG_FAST_ZERO:
            return wire.ENOTSUP, "not faster than writing"
        return None


_MUTATIONS = frozenset((wire.CMD_WRITE, wire.CMD_TRIM, wire.CMD_WRITE_ZEROES))


class RequestParser:
    """``attach`` a buffer when ``wants`` says so, receive into ``room``, tell ``filled``, then
    ``take`` until it returns None; if it is ``blocked`` then, take again once there is room.
    """

    def __init__(self, rules: Rules):
        self.disconnected = False
        self.blocked = False
        self._rules = rules
        self._buffer: ReceiveBuffer | None = None
        self._start = self._end = 0  # unparsed bytes of the buffer
        self._need = _HEADER  # bytes of the request at _start, as far as known
        self._skip = 0
        self._error: ProtocolError | None = None

    @property
    def inside(self) -> bool:
        """The client has begun a request and not finished sending it."""
        return not self.disconnected and (self._end > self._start or self._skip > 0)

    @property
    def drained(self) -> bool:
        """Nothing is left to take."""
        return self._start == self._end and self._error is None

    def wants(self, pooled: int) -> int:
        """Capacity of the buffer to attach before the next receive, or 0.

        ``pooled`` is the size of an ordinary buffer; what is larger is made for one payload.
        """
        buffer, need = self._buffer, max(self._need, _MIN_ROOM)
        if buffer is None:
            return max(need, pooled)
        alone = buffer.holders == 1 and buffer.capacity == pooled
        if alone and self._start == self._end:
            self._start = self._end = 0
        elif alone and need <= pooled < self._start + need:
            self._move(buffer.view, buffer.view)
        if self._start + need <= buffer.capacity:
            return 0
        return max(need, pooled)

    def attach(self, buffer: ReceiveBuffer) -> None:
        """Go on in ``buffer``, taking the unfinished request along."""
        if self._buffer is not None:
            self._move(self._buffer.view, buffer.view)
            self._buffer.release()
        self._buffer = buffer

    def detach(self) -> None:
        """Let go of the buffer at the end of the connection."""
        if self._buffer is not None:
            self._buffer.release()
            self._buffer = None
            self._start = self._end = 0

    def room(self) -> memoryview:
        """Where to receive; not empty once ``wants`` is 0."""
        return self._buffer.view[self._end :] if self._buffer else _NOTHING

    def filled(self, count: int) -> None:
        """``count`` bytes were received into ``room``."""
        self._end += count

    def unparsed(self) -> tuple[ReceiveBuffer, int, int] | None:
        """The buffer, and from where to where in it requests stand that were not taken yet; None
        if there are none, or what is there does not begin one."""
        if self._buffer is None or self._skip or self._error is not None or self.disconnected:
            return None
        return self._buffer, self._start, self._end

    def advance(self, at: int) -> None:
        """Whole requests up to byte ``at`` of the buffer are dealt with."""
        self._start = at
        self._need = _HEADER

    def take(self, most: int, room: int) -> Batch | None:
        """Up to ``most`` (at least 1) requests that hold up to ``room`` bytes, or None.

        Raises ``ProtocolError`` where the stream makes no sense, after everything before it has
        been handed out.
        """
        buffer = self._buffer
        if buffer is None:
            return None
        if self._error is not None:
            raise self._error
        requests: list[Request] = []
        refusals: list[Refusal] = []
        held, read = self._scan(buffer.view, most, room, requests, refusals)
        if requests or refusals:
            buffer.hold()
            return Batch(requests, refusals, buffer, held, read)
        if self._error is not None:
            raise self._error
        return None

    def _scan(
        self,
        view: memoryview,
        most: int,
        room: int,
        requests: list[Request],
        refusals: list[Refusal],
    ) -> tuple[int, int]:
        # The one loop that runs for every request: local names, no calls that can be avoided.
        unpack, refuse = wire.REQUEST.unpack_from, self._rules.refuse
        at, end, held, read = self._start, self._end, 0, 0
        self.blocked = False
        while most and not self.disconnected:
            if self._skip:
                cut = min(self._skip, end - at)
                self._skip -= cut
                at += cut
            self._need = _HEADER
            if end - at < _HEADER:
                break
            magic, flags, command, cookie, offset, length = unpack(view, at)
            carried = length if command == wire.CMD_WRITE else 0
            if magic != wire.REQUEST_MAGIC or carried > wire.MAX_PAYLOAD:
                self._error = _broken(magic, length)
                break
            if command == wire.CMD_DISC:
                self.disconnected = True
                break
            refusal = refuse(command, flags, offset, length)
            start = at + _HEADER
            if refusal is not None:
                refusals.append(Refusal(cookie, *refusal))
                self._skip = carried
                at = start
                most -= 1
                continue
            cost = length if command <= wire.CMD_WRITE else 0
            if cost > room - held:
                self.blocked = True
                break
            if start + carried > end:
                self._need = _HEADER + carried
                break
            at = start + carried
            if not carried:
                payload = _NOTHING
                read += cost
            else:
                payload = view[start:at]
            held += cost
            requests.append(Request(command, flags, cookie, offset, length, payload, start))
            most -= 1
        self._start = at
        return held, read

    def _move(self, source: memoryview, target: memoryview) -> None:
        count = self._end - self._start
        target[:count] = source[self._start : self._end]  # overlapping is fine
        self._start, self._end = 0, count


def _broken(magic: int, length: int) -> ProtocolError:
    if magic != wire.REQUEST_MAGIC:
        return ProtocolError(f"a request starts with {magic:#x}", operation="NBD request")
    return ProtocolError(
        f"a payload of {length} bytes; at most {wire.MAX_PAYLOAD}", operation="NBD request"
    )
