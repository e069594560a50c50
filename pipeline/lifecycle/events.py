"""What happens to a machine, and what is to be done about it: names without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.control.model import JobKind, Operation


class Happening(StrEnum):
    """An event that nobody asked for: the daemon sees it, or a job reports it."""

    # enabling
    PREREQUISITES_PASSED = "prerequisites passed"
    PREREQUISITES_FAILED = "prerequisites failed"
    START_SCHEDULED = "start scheduled"  # initial replication is to begin at a time
    START_DUE = "start due"  # that time has come
    SCAN_FINISHED = "scan finished"  # initial replication: the first consistent point is stored
    FINALIZED = "finalized"
    # replicating
    GAP_OPENED = "gap opened"  # writes are no longer in the stream: only touched regions are known
    RESYNC_BEGUN = "resync begun"
    GAP_CLOSED = "gap closed"  # the resync is over, points are consistent again
    RESYNC_CANCELLED = "resync cancelled"
    RECOVERABLE_ERROR = "recoverable error"
    NON_RECOVERABLE_ERROR = "non-recoverable error"
    CREDENTIALS_RELOADED = "credentials reloaded"
    RECOVERED = "recovered"  # delivery works again, and the vault has the whole machine
    RECOVERED_IN_GAP = "recovered in a gap"
    RECOVERED_INITIAL = "recovered before the first point"
    # failover
    PREPARED = "prepared"  # the source is stopped and its last write is in the vault
    FAILOVER_BEGUN = "failover begun"
    FAILED_OVER = "failed over"
    POINT_CHANGED = "point changed"
    COMMITTED = "committed"
    FAILOVER_CANCELLED = "failover cancelled"
    REPROTECTED = "reprotected"
    FAILED_BACK = "failed back"  # the original disks are production again, and captured
    MIGRATED = "migrated"
    DISABLED = "disabled"
    # jobs
    JOB_FAILED = "job failed"
    JOB_CANCELLED = "job cancelled"
    # the test's own
    TEST_STARTED = "test started"
    TEST_FAILED = "test failed"
    TEST_CLEANED = "test cleaned up"
    CLEANUP_FAILED = "cleanup failed"


class Do(StrEnum):
    """Something to be done at once. Each may be done twice: a daemon that was killed repeats it."""

    KEEP_SCHEDULE = "keep the time of the start"
    WAKE_CAPTURE = "journal its writes"
    REST_CAPTURE = "only track its writes"
    START_DELIVERY = "ship its journal"
    STOP_DELIVERY = "leave its journal alone"
    COMPARE_ALL = "compare all of its disks"
    RELEASE_SCAN = "let scans go on"
    HOLD_SCAN = "hold scans"
    CLIMB = "wait for the ladder's next step"
    GIVE_UP = "do not try again"
    TRY_NOW = "end the ladder's wait"
    TRY_ONCE = "try once with what was read again"
    FORGET = "forget what is kept of it"


@dataclass(frozen=True, slots=True)
class Start:
    """A job to be started; it reports how it goes as happenings."""

    job: JobKind


Event = Operation | Happening
Effect = Do | Start
