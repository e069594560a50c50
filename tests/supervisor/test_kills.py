"""The supervisor is killed in every state: it comes back in that state, and finishes the job that
it finds or fails it with a reason."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from pipeline.control.model import Direction, JobKind, Problem, State
from pipeline.control.model import TestFailover as Axis
from pipeline.lifecycle.rules import Situation
from pipeline.supervisor.dbrecords import DatabaseRecords
from pipeline.supervisor.records import MachineRecord, NewJob
from pipeline.supervisor.supervisor import DATABASE
from stages.system import this_machine
from tests.cli.support import Place
from tests.daemon.running import prepare, qemu_io
from tests.supervisor.hosted import Host, Refused, bury_intake, hosted
from tests.waiting import until

DAY = 86_400_000_000
PROBLEM = Problem("Fenced", "another writer", "a person decides", False, 10)


@dataclass(frozen=True)
class Killed:
    """What was saved when it was killed, and what comes of it."""

    record: MachineRecord
    job: JobKind | None
    then: str
    ended: str = "succeeded"


def at(state: State, **more: object) -> MachineRecord:
    record = MachineRecord("web1", Situation(state), whole=True)
    return replace(record, **more)  # type: ignore[arg-type]


def in_test(axis: Axis) -> MachineRecord:
    return at(State.SUSPENDED, situation=Situation(State.SUSPENDED, test=axis))


FUTURE = time.time_ns() // 1000 + DAY
REPROTECTING_BACK = Situation(State.REPROTECTING, Direction.REVERSE)
CASES = {
    "disabled": Killed(at(State.DISABLED, wanted=False), None, "disabled"),
    "checking": Killed(at(State.CHECKING), JobKind.ENABLE_PROTECTION, "replicating"),
    "checking, no job": Killed(at(State.CHECKING), None, "replicating"),
    "ready, job": Killed(at(State.READY), JobKind.ENABLE_PROTECTION, "replicating"),
    "ready, later": Killed(at(State.READY, start_us=FUTURE), None, "ready for replication"),
    "initial": Killed(
        at(State.INITIAL_REPLICATION, whole=False), JobKind.INITIAL_REPLICATION, "replicating"
    ),
    "finalizing": Killed(at(State.FINALIZING), JobKind.FINALIZE_PROTECTION, "replicating"),
    "finalizing, no job": Killed(at(State.FINALIZING), None, "replicating"),
    "replicating": Killed(at(State.REPLICATING), None, "replicating"),
    "replicating, mark": Killed(at(State.REPLICATING), JobKind.MARK, "replicating", "failed"),
    "suspended": Killed(at(State.SUSPENDED), None, "suspended"),
    "waiting": Killed(at(State.WAITING_FOR_RESYNC), None, "replicating"),
    "resynchronizing": Killed(at(State.RESYNCHRONIZING), JobKind.RESYNCHRONIZE, "replicating"),
    "resynchronizing, to be ordered": Killed(
        at(State.RESYNCHRONIZING, compare=True), JobKind.RESYNCHRONIZE, "replicating"
    ),
    "resync suspended": Killed(at(State.RESYNC_SUSPENDED), None, "resync suspended"),
    "critical": Killed(at(State.CRITICAL, problem=PROBLEM), None, "replicating"),
    "prepared": Killed(at(State.PREPARED), None, "planned failover prepared"),
    "prepared, job": Killed(
        at(State.PREPARED), JobKind.PLANNED_FAILOVER, "failed over, commit pending"
    ),
    "failing over": Killed(
        at(State.FAILING_OVER), JobKind.PLANNED_FAILOVER, "failed over, commit pending"
    ),
    "failing over, nobody does it": Killed(
        at(State.FAILING_OVER), JobKind.UNPLANNED_FAILOVER, "failing over", "failed"
    ),
    "commit pending": Killed(at(State.COMMIT_PENDING), None, "failed over, commit pending"),
    "committing": Killed(at(State.COMMIT_PENDING), JobKind.COMMIT_FAILOVER, "failover committed"),
    "cancelling": Killed(at(State.COMMIT_PENDING), JobKind.CANCEL_FAILOVER, "replicating"),
    "committed": Killed(at(State.COMMITTED), None, "failover committed"),
    "reprotecting": Killed(at(State.REPROTECTING), JobKind.REPROTECT, "replicating"),
    "reprotecting, back": Killed(
        at(State.REPROTECTING, situation=REPROTECTING_BACK), JobKind.REPROTECT, "replicating"
    ),
    "migrated": Killed(at(State.MIGRATED), None, "migrated"),
    "disabling": Killed(at(State.DISABLING, wanted=False), JobKind.DISABLE, "disabled"),
    "disabling, no job": Killed(at(State.DISABLING, wanted=False), None, "disabled"),
    "test": Killed(in_test(Axis.RUNNING), JobKind.TEST_FAILOVER, "suspended"),
    "test cleaned": Killed(in_test(Axis.CLEANING_UP), JobKind.CLEANUP_TEST_FAILOVER, "suspended"),
    "job of another state": Killed(
        at(State.SUSPENDED), JobKind.RESYNCHRONIZE, "suspended", "failed"
    ),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """One that replicates, and whose intake goes on through all that follows."""
    with TemporaryDirectory(prefix="bs-") as folder:
        found = prepare(Path(folder))
        try:
            with hosted(found) as host:
                host.until("replicating")
                host.kill()
            yield found
        finally:
            bury_intake(found)


def _forget(place: Place) -> None:
    """No control database."""
    for path in (place / "state").glob(f"{DATABASE}*"):
        path.unlink()


async def leave(place: Place, killed: Killed) -> int | None:
    """What a supervisor that was killed leaves."""
    _forget(place)
    records = DatabaseRecords(this_machine(), lambda: str(place / "state" / DATABASE))
    async with trio.open_nursery() as nursery:
        await nursery.start(records.run)
        new = None
        if killed.job is not None:
            new = NewJob(killed.job, "web1", "test", {"declared": True})
        made = await records.save(killed.record, new)
        nursery.cancel_scope.cancel()
    return None if made is None else made.id


def _moves(host: Host) -> list[str]:
    """The states that were left."""
    events = [each["fields"] for each in host.ask("events") if each["kind"] == "state"]
    return [fields["before"] for fields in events if fields.get("before") is not None]


def _until_test(host: Host, test: str) -> None:
    """Suspended, with or without a gap that the cases before have left, and so far with a test."""

    def look() -> bool:
        view = host.view()
        return bool(view["test"] == test and "suspended" in view["state"])

    until(host.view, look)


def _operated(host: Host, operation: str, **parameters: Any) -> dict[str, Any]:
    """Once it replicates: a gap that the kill has left may be found a moment later."""

    def order() -> dict[str, Any] | None:
        host.until("replicating")
        try:
            return dict(host.operate(operation, **parameters))
        except Refused as refused:
            if "resync" not in str(refused):
                raise
            return None

    return until(f"{operation}, which is refused for a resync", order)


def _cancelled(host: Host, job: int) -> None:
    """Once it goes on: after a kill it is begun again in a moment."""

    def cancel() -> bool:
        try:
            host.ask("act", number=job, action="cancel")
        except Refused as refused:
            if "taken up again" not in str(refused):
                raise
            return False
        return True

    until(f"job {job}, which is to be taken up again", cancel, pause=0.02)


def test_every_state_is_here() -> None:
    assert {case.record.situation.state for case in CASES.values()} == set(State)


@pytest.mark.parametrize("name", CASES)
def test_it_comes_back_in_that_state(place: Place, name: str) -> None:
    killed = CASES[name]
    job = trio.run(leave, place, killed)
    with hosted(place) as host:
        view = host.until(killed.then)
        if killed.then != killed.record.situation.state:  # the event follows the state
            until("the event of its move", lambda: _moves(host), pause=0.02)
        moves = _moves(host)
        if moves:
            assert moves[0] == killed.record.situation.state
        else:
            assert killed.then == killed.record.situation.state
        if job is not None:
            ended = host.ended(job)
            assert ended["state"] == killed.ended, ended
            if ended["state"] == "failed":
                assert "the daemon ended while it was under way" in ended["problem"]["message"]
        if name == "test":
            _until_test(host, "waiting for cleanup")
        if name == "test cleaned":
            _until_test(host, "none")
        if name.startswith("reprotecting"):
            back = killed.record.situation.direction is Direction.REVERSE
            assert view["direction"] == ("forward" if back else "reverse")
        if name == "failing over":
            assert view["failover"]["branch"] == "b1"
        qemu_io(place, "write -P 1 1M 4k", "flush")  # intake goes on, whatever it is


def test_killed_for_real_in_the_middle_of_a_failover(place: Place) -> None:
    trio.run(leave, place, Killed(at(State.REPLICATING), None, ""))
    with hosted(place) as host:
        job = _operated(host, "failover-planned", hang="fail over")
        host.until("planned failover prepared", job=job["id"])
        with pytest.raises(Refused, match=r"job \d+ \(planned failover\) is under way"):
            host.operate("failover-cancel")
        host.kill()
    with hosted(place) as host:
        host.until("planned failover prepared", job=job["id"])
        _cancelled(host, job["id"])
        assert host.ended(job["id"])["state"] == "cancelled"
        with pytest.raises(Refused):
            _cancelled(host, job["id"])
        again = host.operate("failover-planned", fail="start")
        failed = host.ended(again["id"])
        assert failed["problem"]["error"] == "StoreUnreachable"
        assert [task["state"] for task in failed["tasks"]] == ["succeeded", "failed"]
        host.until("failing over")
        cancelled = host.operate("failover-cancel")
        assert host.ended(cancelled["id"])["state"] == "succeeded"
        host.until("replicating")
        test = host.operate("failover-test")
        host.ended(test["id"])
        host.until("replicating", test="waiting for cleanup")
        with pytest.raises(Refused, match="test failover waiting for cleanup"):
            host.operate("failover-test")
        host.ended(host.operate("failover-cleanup")["id"])
        host.until("replicating", test="none")


def test_a_state_that_is_damaged(place: Place) -> None:
    _forget(place)
    (place / "state" / DATABASE).write_text("no database" * 1000)
    with pytest.raises(AssertionError, match="StateDamaged"), hosted(place) as _:
        pass
    _forget(place)
    with hosted(place) as host:
        assert isinstance(host, Host)
        host.until("replicating")  # it has points: it goes on
