"""Jobs as the supervisor runs them: who carries out which kind, and what a carrier may use.

A carrier is an async function from ``Work`` to ``Outcome``. It may be started again after a kill
of the daemon if it is ``resumable``; it raises ``BackstayError`` when it fails. Further kinds (the
operations of a failover that take the vault's private key) are added with ``Carriers.add``; what
nobody carries out is refused before anything is changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.config.model import Config
from pipeline.control.model import JobKind, Operation, Problem, Stake, State
from pipeline.control.views import JobView
from pipeline.lifecycle.events import Happening
from pipeline.lifecycle.rules import Situation
from pipeline.state import StateFolder
from pipeline.supervisor.facts import Look
from pipeline.supervisor.records import MachineRecord
from stages.errors import IllegalOperation
from stages.ports import Machine

_COMMANDS: Mapping[Operation, str] = {
    Operation.TEST_FAILOVER: "backstay failover test",
    Operation.CLEANUP_TEST: "backstay failover cleanup",
    Operation.PLANNED_FAILOVER: "backstay failover planned",
    Operation.UNPLANNED_FAILOVER: "backstay failover unplanned",
    Operation.CHANGE_POINT: "backstay failover change-point",
    Operation.COMMIT_FAILOVER: "backstay failover commit",
    Operation.CANCEL_FAILOVER: "backstay failover cancel",
    Operation.REPROTECT: "backstay failover reprotect",
    Operation.FAILBACK: "backstay failover planned",
    Operation.MIGRATE: "backstay failover migrate",
}


class Overtaken(Exception):
    """The machine went another way, and the job has nothing to do any more: it is cancelled, or
    failed for ``problem``."""

    def __init__(self, now: Situation, problem: Problem | None = None):
        super().__init__(f"the machine is now: {now}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended well: what happened with that, and what it has made. ``start_us``: when
    initial replication is to begin, for ``START_SCHEDULED``."""

    happening: Happening | None
    description: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    start_us: int | None = None


class Work(Protocol):
    """What a carrier sees of the supervisor. ``parameters`` are those of the operation."""

    ports: Machine
    state: StateFolder
    job: JobView
    parameters: Mapping[str, Any]

    @property
    def config(self) -> Config:
        """The configuration as it is now."""

    @property
    def machine(self) -> str:
        """The machine's name."""

    @property
    def record(self) -> MachineRecord:
        """The machine as it is now."""

    @property
    def look(self) -> Look:
        """What intake said of it last."""

    @property
    def said(self) -> Mapping[str, Any]:
        """What delivery said of it last."""

    async def changed(self) -> None:
        """Return when ``record``, ``look`` or ``said`` may be other ones."""

    async def happen(self, happening: Happening, failover: Mapping[str, Any] | None = None) -> None:
        """Move the machine on in the middle of the job, durably; ``failover`` is kept with it.
        ``IllegalOperation``."""

    async def progress(
        self, percent: float | None = None, *, done: int = 0, total: int = 0, what: str = ""
    ) -> None:
        """For people who look. ``what``: the description of the job."""

    async def task(self, name: str) -> None:
        """The next step begins; the one before has succeeded."""

    async def let_guests(self, *, come: bool) -> None:
        """May clients come to the machine's disks? Durably; with False refused while there are
        any (``SourceBusy``). ``IntakeGone``."""

    async def intake(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A command to intake. ``IntakeGone``, or its error."""


Carry = Callable[[Work], Awaitable[Outcome]]
Foresee = Callable[[str, Mapping[str, Any]], Awaitable[Stake]]
Undo = Callable[[Work], Awaitable[None]]
Check = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Carrier:
    """``failed`` and ``cancelled``: what happens with a job that ends so. ``states``: in which the
    job makes sense; one that is found in another after a kill has nothing to do any more.
    ``beside``: other operations are possible while it runs. ``check`` raises ``UsageError`` for
    parameters that cannot be; ``foresee`` says what is at stake. ``undo`` follows when it failed or
    was cancelled, not when the daemon ends: then it goes on at the next start."""

    carry: Carry
    failed: Happening | None = Happening.JOB_FAILED
    cancelled: Happening | None = Happening.JOB_CANCELLED
    resumable: bool = True
    cancellable: bool = True
    beside: bool = False
    states: frozenset[State] = frozenset(State)
    check: Check = lambda _: None
    foresee: Foresee | None = None
    undo: Undo | None = None


class Carriers:
    """Who carries out which kind of job."""

    def __init__(self) -> None:
        self._known: dict[JobKind, Carrier] = {}

    def add(self, kind: JobKind, carrier: Carrier) -> None:
        """The last one counts."""
        self._known[kind] = carrier

    def get(self, kind: JobKind) -> Carrier | None:
        """None if nobody does."""
        return self._known.get(kind)

    def need(self, kind: JobKind, operation: Operation, machine: str) -> Carrier:
        """``IllegalOperation`` names the command that does it if nobody here does."""
        found = self._known.get(kind)
        if found is None:
            command = _COMMANDS.get(operation, f"backstay {operation.value}")
            raise IllegalOperation(
                "this daemon does not carry it out: it takes the vault's private key",
                operation=operation.value,
                subject=machine,
                hint=f"on a host with the key: {command} {machine}",
            )
        return found
