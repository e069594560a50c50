"""Immutable views of the daemon, its machines, jobs and vaults.

The supervisor makes the views; the API, the command line, metrics and alerts read nothing else.
Times are microseconds since 1970-01-01 UTC (``*_us``), sizes bytes, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.control.model import (
    Direction,
    Health,
    JobAction,
    JobKind,
    JobState,
    Ladder,
    Operation,
    Problem,
    Reason,
    State,
    TestFailover,
)


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
