"""Changes that wait for the writer go into one transaction: its fsync is what they all wait for.

Each is still all or nothing by itself: what one of them may not do undoes that one only. One of
those who wait leads: it writes what has come together until its turn, and hands the lead on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from pipeline.records.model import Applied, Change
from stages.errors import BackstayError

MOST = 64  # changes of one transaction

Outcome = Applied | BackstayError
WriteAll = Callable[[Sequence[Change]], Awaitable[Sequence[Outcome]]]
"""Writes all of them in one transaction: what became of each. Raises if there was none."""


@dataclass(eq=False)
class _Waiting:
    change: Change
    task: Any = None  # that is parked, until it is told
    outcome: Outcome | BaseException | None = None
    leads: bool = False
    taken: bool = False


@dataclass
class Grouped:
    """``write_all`` is called by one task at a time."""

    write_all: WriteAll
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _led: bool = False

    async def write(self, change: Change) -> Applied:
        """``change`` is durable on return. Cancelled before it is being written, it is not; after
        that, cancelling does not cut it short. Raises what became of it."""
        mine = _Waiting(change)
        self._waiting.append(mine)
        if self._led:
            await self._parked(mine)
        else:
            self._led = mine.leads = True
        if mine.leads:
            await self._lead(mine)
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        assert mine.outcome is not None  # noqa: S101
        return mine.outcome

    async def _parked(self, mine: _Waiting) -> None:
        """Until it was written, or is to lead."""
        mine.task = trio.lowlevel.current_task()

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            if mine.taken or mine.leads:
                return trio.lowlevel.Abort.FAILED
            self._waiting.remove(mine)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _lead(self, mine: _Waiting) -> None:
        group: list[_Waiting] = []
        try:
            # What others are about to ask for comes along; cancelled here, nothing was written.
            await trio.lowlevel.checkpoint()
            while self._waiting and len(group) < MOST:
                group.append(self._waiting.popleft())
                group[-1].taken = True
            with trio.CancelScope(shield=True):
                outcomes = await self.write_all([one.change for one in group])
            for one, outcome in zip(group, outcomes, strict=True):
                one.outcome = outcome
        except BaseException as raised:
            for one in group:
                one.outcome = raised
            if not mine.taken:
                self._waiting.remove(mine)
            raise
        finally:
            for one in group:
                if one is not mine:
                    trio.lowlevel.reschedule(one.task)
            self._hand_on()

    def _hand_on(self) -> None:
        self._led = bool(self._waiting)
        if self._led:
            following = self._waiting[0]
            following.leads = True
            trio.lowlevel.reschedule(following.task)
