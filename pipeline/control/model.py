"""The names of states, operations and jobs; why something is not well; who asks for what.

Times are microseconds since 1970-01-01 UTC (``*_us``). See ``views`` for what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a machine's protection stands (the names of Hyper-V Replica and Site Recovery)."""

    DISABLED = "disabled"
    CHECKING = "checking prerequisites"
    READY = "ready for replication"  # initial replication has not begun, or waits for its time
    INITIAL_REPLICATION = "initial replication"
    FINALIZING = "finalizing protection"
    REPLICATING = "replicating"
    SUSPENDED = "suspended"
    WAITING_FOR_RESYNC = "waiting for resync"
    RESYNCHRONIZING = "resynchronizing"
    RESYNC_SUSPENDED = "resync suspended"
    CRITICAL = "critical"
    PREPARED = "planned failover prepared"
    FAILING_OVER = "failing over"
    COMMIT_PENDING = "failed over, commit pending"
    COMMITTED = "failover committed"
    REPROTECTING = "reprotecting"
    MIGRATED = "migrated"
    DISABLING = "disabling"


class TestFailover(StrEnum):
    """The axis of its own: a test does not touch replication."""

    NONE = "none"
    RUNNING = "running"
    WAITING_FOR_CLEANUP = "waiting for cleanup"
    CLEANING_UP = "cleaning up"


class Direction(StrEnum):
    """Which side is production: ``reverse`` after a failover was reprotected, until failback."""

    FORWARD = "forward"
    REVERSE = "reverse"


class Operation(StrEnum):
    """What an operator may ask for."""

    PROTECT = "protect"
    UNPROTECT = "unprotect"
    START_REPLICATION = "start-replication"
    SUSPEND = "suspend"
    RESUME = "resume"
    RESYNC = "resync"
    RETRY = "retry"
    MARK = "mark"
    TEST_FAILOVER = "failover-test"
    CLEANUP_TEST = "failover-cleanup"
    PLANNED_FAILOVER = "failover-planned"
    UNPLANNED_FAILOVER = "failover-unplanned"
    CHANGE_POINT = "failover-change-point"
    COMMIT_FAILOVER = "failover-commit"
    CANCEL_FAILOVER = "failover-cancel"
    REPROTECT = "reprotect"
    FAILBACK = "failback"
    MIGRATE = "migrate"


class JobKind(StrEnum):
    """What a job does; the operations that take time, and what the daemon begins by itself."""

    ENABLE_PROTECTION = "enable protection"
    INITIAL_REPLICATION = "initial replication"
    FINALIZE_PROTECTION = "finalize protection"
    RESYNCHRONIZE = "resynchronize"
    TEST_FAILOVER = "test failover"
    CLEANUP_TEST_FAILOVER = "clean up test failover"
    PLANNED_FAILOVER = "planned failover"
    UNPLANNED_FAILOVER = "unplanned failover"
    CHANGE_POINT = "change recovery point"
    COMMIT_FAILOVER = "commit failover"
    CANCEL_FAILOVER = "cancel failover"
    REPROTECT = "reprotect"
    FAILBACK = "failback"
    MIGRATE = "migrate"
    DISABLE = "disable protection"
    MARK = "make recovery point"


class JobState(StrEnum):
    """As operators of Site Recovery know them."""

    NOT_STARTED = "not started"
    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"  # waits for a person

    @property
    def is_over(self) -> bool:
        """Nothing follows by itself."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobAction(StrEnum):
    """What may be done to a job now."""

    CANCEL = "cancel"
    RESTART = "restart"
    RESUME = "resume"


class Health(StrEnum):
    """The worst reason wins."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a machine or the daemon is not well: ``code`` is stable, for filters and alerts."""

    code: str
    health: Health
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is shown: the class's name, and whether the daemon tries again by itself."""

    error: str
    message: str
    hint: str
    recoverable: bool
    exit_code: int


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where delivery stands on the ladder of retries; ``attempt`` 0: it runs."""

    attempt: int = 0
    last: Problem | None = None
    next_try_us: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for the audit record: ``role`` is viewer, operator or approver. ``key``: of this
    request; the job that it begins bears it, so that a repetition is known as such."""

    name: str
    role: str
    address: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Stake:
    """What an operation would do, said before it is confirmed. ``lines``: for people, in order."""

    operation: Operation
    machine: str
    irreversible: bool
    lines: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
