"""The names of states, operations and jobs, and immutable views of them.

The supervisor makes the views; the API, the command line, metrics and alerts read nothing else.
Times are microseconds since 1970-01-01 UTC (``*_us``), sizes bytes, durations seconds.
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
class DiskView:
    """A disk of a machine. ``socket``: the URI its guest uses; "" for one that is only scanned."""

    name: str
    size: int
    path: str
    socket: str


@dataclass(frozen=True, slots=True)
class Scan:
    """An initial replication or resync under way, in bytes."""

    done: int
    total: int
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class FailoverView:
    """The failover under way: of which point, to which branch, and where the replica is served."""

    point: int
    stamp_us: int
    consistent: bool
    planned: bool
    branch: str
    sockets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageView:
    """How a stage of delivery spent its time since delivery last began, in seconds summed over
    ``workers``: at work, waiting for something to do, waiting for room in the next stage."""

    name: str
    workers: int
    busy_seconds: float
    wait_in_seconds: float
    wait_out_seconds: float


@dataclass(frozen=True, slots=True)
class MachineView:
    """One protected machine now. ``rpo_seconds`` as in R19, None without a consistent point."""

    name: str
    state: State
    direction: Direction
    test: TestFailover
    health: Health
    reasons: tuple[Reason, ...]
    allowed: tuple[Operation, ...]
    vault: str
    policy: str
    disks: tuple[DiskView, ...]
    rpo_seconds: float | None
    point: int | None
    point_stamp_us: int | None
    journal_bytes: int
    journal_limit: int
    shipped_bytes: int
    ladder: Ladder
    scan: Scan | None
    failover: FailoverView | None
    job: int | None  # the job under way
    stages: tuple[StageView, ...] = ()  # of delivery, in the order of the data


@dataclass(frozen=True, slots=True)
class TaskView:
    """A step of a job."""

    name: str
    state: JobState
    percent: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job. ``problem``: why it failed; ``note``: what people said; ``key``: of the request that
    began it, "" if it had none."""

    id: int
    kind: JobKind
    machine: str
    state: JobState
    description: str
    created_us: int
    started_us: int | None
    ended_us: int | None
    percent: float | None
    bytes_done: int
    bytes_total: int
    tasks: tuple[TaskView, ...]
    problem: Problem | None
    allowed: tuple[JobAction, ...]
    by: str
    notes: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, slots=True)
class EventView:
    """Something happened. ``id`` counts up for ever; ``kind`` is stable: ``state``, ``health``,
    ``job``, ``ladder``, ``config``, ``point``, ``daemon``."""

    id: int
    at_us: int
    kind: str
    machine: str
    job: int | None
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OperationView:
    """One kind of request to a vault (``put``, ``get``, ``info``, ``list``, ``delete``), since the
    daemon started. ``bytes``: stored by puts, returned by gets. ``errors`` by name. ``seconds``:
    sum of all; the quantiles are rounded up to a power of two microseconds. ``latencies``: how many
    took at least 2**(i-1) and below 2**i microseconds."""

    name: str
    calls: int
    bytes: int
    errors: Mapping[str, int]
    seconds: float
    p50_seconds: float
    p99_seconds: float
    latencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MonthView:
    """What a vault will be asked for in 30 days. ``observed_seconds``: what that goes by; 0: by the
    configuration, at most (machines that are written to all the time), bytes unknown.
    ``idle_puts``: what it would be if nobody wrote: the machines' heartbeats."""

    observed_seconds: float
    puts: int
    gets: int
    infos: int
    lists: int
    deletes: int
    sent_bytes: int | None
    fetched_bytes: int | None
    idle_puts: int


@dataclass(frozen=True, slots=True)
class StoreView:
    """A vault as delivery uses it. ``machines``: how many ship to it. Limits in bytes a second, as
    they hold now; None: no limit. ``waiting``: requests that the limits hold up now."""

    vault: str
    url: str
    machines: int
    upload_limit: int | None
    download_limit: int | None
    waiting: int
    operations: tuple[OperationView, ...]
    month: MonthView


@dataclass(frozen=True, slots=True)
class DaemonView:
    """The daemon as a whole."""

    version: str
    pid: int
    started_us: int
    config: str
    ready: bool
    health: Health
    reasons: tuple[Reason, ...]
    intake_pid: int | None
    delivery_pid: int | None
    key_drilled_us: int | None
    stores: tuple[StoreView, ...] = ()


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
