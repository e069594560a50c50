"""Marks: named places in the stream that become recovery points (R20).

A mark between freeze and thaw is application-consistent only if thaw confirms that the freeze still
held, and no gap was open. That is known after the mark's place in the stream, so delivery may not
read past the mark before the verdict stands in the stream too, and is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from stages.capture.group.gap import Gap
from stages.capture.splitter.gate import Gate
from stages.joint import Joint
from stages.stream import Kind, MarkedPoint, Position

APP = "app"
CRASH = "crash"


class Marks:
    """Makes the marks of one group. Ids are those of the run's positions, so never used twice."""

    def __init__(self, joint: Joint, gate: Gate, gap: Gap):
        self._joint = joint
        self._gate = gate
        self._gap = gap
        self._held: dict[int, Position] = {}  # marks without a verdict: delivery stops before them
        self._verdicts: dict[int, Position] = {}  # positions behind verdicts that are not durable
        self._spoilt: set[int] = set()
        self._pushed: set[int] = set()  # somebody waits to hear what becomes of them
        self._next = 0

    def gap(self) -> None:
        """A gap begins: marks without a verdict are lost."""
        self._spoilt.update(self._held)

    def failed(self, durable: Position, reason: str) -> None:
        """The journal has failed: what is not durable never will be, and holds nothing up."""
        for mark, position in self._held.items():
            if position >= durable:
                self._joint.tell(MarkedPoint(mark, 0, 0, "", reason))
        self._held.clear()
        self._verdicts.clear()
        self._spoilt.clear()

    def skipped(self, reason: str) -> None:
        """Delivery goes on behind the head: it will not read what stands before that."""
        for mark in self._pushed:
            self._joint.tell(MarkedPoint(mark, 0, 0, "", reason))

    def readable(self, durable: Position) -> Position:
        """How far delivery may read, of what is durable."""
        return min([durable, *self._held.values()])

    def durable(self, position: Position) -> None:
        """Verdicts up to ``position`` are durable: their marks may be read."""
        for mark in [mark for mark, behind in self._verdicts.items() if behind <= position]:
            del self._verdicts[mark]
            self._held.pop(mark, None)

    def close(self) -> None:
        """The stream ends: what has no verdict is lost, and holds delivery up no more."""
        for mark in set(self._held) - set(self._verdicts):
            self._decide(mark, valid=False)

    async def make(
        self,
        label: str,
        freeze: Callable[[], Awaitable[None]] | None = None,
        thaw: Callable[[], Awaitable[bool]] | None = None,
        *,
        grade: str = CRASH,
    ) -> MarkedPoint:
        """A mark at the head; returns when it is a recovery point, or is not going to be one.

        With hooks it is of grade "app" if ``thaw`` returns True. ``thaw`` always runs. Without, it
        is of ``grade``: "planned" where nobody can write any more.
        """
        self._next += 1
        mark = self._id()
        failed = self._gate.stream.failed
        if failed is not None:
            return MarkedPoint(mark, 0, 0, "", f"journal: {failed.message}")
        with self._joint.awaiting(mark):
            try:
                if freeze is None or thaw is None:
                    self._push(mark, label, grade)
                    self._decide(mark, valid=True)
                else:
                    await self._frozen(mark, label, freeze, thaw)
                return await self._joint.wait_marked(mark)
            finally:
                self._pushed.discard(mark)

    async def _frozen(
        self,
        mark: int,
        label: str,
        freeze: Callable[[], Awaitable[None]],
        thaw: Callable[[], Awaitable[bool]],
    ) -> None:
        valid = False
        try:
            await freeze()
            self._push(mark, label, APP)
        finally:
            held = await thaw()
            valid = held and mark in self._held and mark not in self._spoilt
            if mark in self._held and mark not in self._verdicts:
                self._decide(mark, valid=valid)
            self._spoilt.discard(mark)

    def _push(self, mark: int, label: str, grade: str) -> None:
        self._held[mark] = self._gate.stream.head
        self._pushed.add(mark)
        if self._gap.is_open:
            self._spoilt.add(mark)
        fields = {"id": mark, "label": label, "grade": grade}
        self._gate.stream.push(self._gate.control(Kind.MARK, fields), 0)

    def _decide(self, mark: int, *, valid: bool) -> None:
        fields = {"id": mark, "valid": valid and mark not in self._spoilt}
        self._verdicts[mark] = self._gate.stream.push(self._gate.control(Kind.VERDICT, fields), 0)
        self._spoilt.discard(mark)

    def _id(self) -> int:
        return (self._gate.stream.head.run << 24) + self._next
