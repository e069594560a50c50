"""A token bucket, and a fair line of those who wait for it. Pure: who asks says what time it is.

An object pays for all of its bytes before it is sent. One that is larger than the bucket waits
until that is full and leaves a debt, which those behind it wait for: so the average holds, and no
object is too large to be sent. Over any time, what was admitted is at most

    rate * time + max(burst, the largest object).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

BURST_SECONDS = 1.0
BURST_LEAST = 1 << 20  # bytes

_NOTHING = 0.5  # of a byte: less than that is missing by rounding only


def burst_of(rate: float) -> float:
    """Bytes that may go at once after a rest, at ``rate`` bytes a second."""
    return max(float(BURST_LEAST), rate * BURST_SECONDS)


class Bucket:
    """Bytes that may be sent. A rate of None is no limit: nothing is counted then."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._balance = 0.0
        self._at = 0.0

    def settle(self, now: float, rate: float | None) -> None:
        """What has flown in until ``now`` (monotonic seconds); ``rate`` holds from here on.

        Where it changes, the time since the last call counts with the lower of the two.
        """
        if rate is not None and self._rate is not None:
            gained = max(0.0, now - self._at) * min(rate, self._rate)
            self._balance = min(self._balance + gained, burst_of(rate))
        elif rate is not None:
            self._balance = burst_of(rate)
        self._rate, self._at = rate, max(now, self._at)

    def wait(self, size: int) -> float:
        """Seconds until ``size`` bytes may go, if nothing else does; 0: now."""
        if self._rate is None:
            return 0.0
        missing = min(float(size), burst_of(self._rate)) - self._balance
        return 0.0 if missing < _NOTHING else missing / self._rate

    def take(self, size: int) -> None:
        """They go. A negative ``size`` gives back what was taken and not used."""
        if self._rate is not None:
            self._balance = min(self._balance - size, burst_of(self._rate))

    @property
    def debt(self) -> float:
        """Bytes that went ahead of their time."""
        return max(0.0, -self._balance)


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the line: ``size`` bytes of ``flow``."""

    flow: str
    size: int
    number: int
    granted: bool = False


@dataclass(eq=False, slots=True)
class _Flow:
    tag: float = 0.0  # bytes of its turns so far, as the line counts them
    waiting: deque[Ticket] = field(default_factory=deque)


class Line:
    """Start-time fair queueing: of two flows that both wait all the time, none gets more than the
    other by more than the largest object of each. Within a flow, first come, first served.

    A flow that did not wait has saved nothing up, and owes nothing. There is one flow for each
    machine, so they are few and kept.
    """

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._virtual = 0.0  # the tag of the turn that was given last
        self._number = 0

    def __len__(self) -> int:
        return sum(len(flow.waiting) for flow in self._flows.values())

    def enter(self, flow: str, size: int) -> Ticket:
        """At the end of the flow's own line."""
        found = self._flows.setdefault(flow, _Flow())
        if not found.waiting:
            found.tag = max(found.tag, self._virtual)
        self._number += 1
        ticket = Ticket(flow, size, self._number)
        found.waiting.append(ticket)
        return ticket

    def first(self) -> Ticket | None:
        """Whose turn it is."""
        waiting = [flow for flow in self._flows.values() if flow.waiting]
        if not waiting:
            return None
        return min(waiting, key=lambda flow: (flow.tag, flow.waiting[0].number)).waiting[0]

    def grant(self, ticket: Ticket) -> None:
        """``ticket``, the first one, has its turn."""
        flow = self._flows[ticket.flow]
        flow.waiting.popleft()
        self._virtual = flow.tag
        flow.tag += ticket.size
        ticket.granted = True

    def leave(self, ticket: Ticket) -> None:
        """Without a turn: nothing was taken, and nothing is counted."""
        self._flows[ticket.flow].waiting.remove(ticket)
