"""What failover operations take and give back: immutable."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.control.model import Operation, Stake
from stages.recover.points import Lost, Point
from stages.vault.failover_log import FailoverLog
from stages.vault.failover_state import FailoverState


class PointKind(enum.StrEnum):
    """How a point is chosen.

    Without the source's daemon there is nothing to drain: then ``LATEST`` is what is processed.
    """

    LATEST = "latest"
    LATEST_PROCESSED = "latest-processed"
    LATEST_APP = "latest-app"
    AT = "at"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which point; ``at`` (kind ``AT`` only): a commit's number, or a stamp in µs as "@..."."""

    kind: PointKind = PointKind.LATEST
    at: int | str | None = None


@dataclass(frozen=True, slots=True)
class Who:
    """Who acts and where; it is recorded in clear."""

    by: str
    host: str


Approve = Callable[[Stake], None]


def accept(_stake: Stake) -> None:
    """Go on without asking."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A point, what it leaves behind, what a person should know."""

    point: Point
    lost: Lost
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a machine stands. ``whole``: fence and branch of an open failover are there.

    ``newest``: the log's newest commit. ``notes``: what the vault's reader passed over.
    """

    machine: str
    group: bytes
    log: FailoverLog
    whole: bool
    newest: Point | None
    notes: tuple[str, ...]

    @property
    def state(self) -> FailoverState:
        """What the records add up to."""
        return self.log.state


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation did. ``rehearsed``: nothing, it only looked. ``again``: it had been done
    by this host before, or begun and is finished now."""

    operation: Operation
    machine: str
    group: bytes
    before: FailoverState
    state: FailoverState
    stake: Stake
    chosen: Chosen | None
    notes: tuple[str, ...]
    rehearsed: bool = False
    again: bool = False
