"""Operations on a real writer's vault: what they record, what they refuse, what they say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from pipeline.control.model import Operation, Stake
from pipeline.failover import operations
from pipeline.failover.model import Approve, Done, PointKind, Wanted, accept
from pipeline.failover.operations import conclude
from pipeline.failover.serve import superseded
from pipeline.recovery import Access
from stages.errors import (
    BrokenChain,
    Fenced,
    IllegalOperation,
    NotFound,
    UsageError,
    WrongKey,
)
from stages.recover.opened import open_vault
from stages.vault import layout
from stages.vault.failover_state import Phase
from stages.vault.failovers import Event
from stages.vault.keyfile import generate
from tests.failover.records import BRANCH, after
from tests.failover.scene import ANN, BOB, NAME, protected
from tests.ship.support import DIGEST_KEY, GROUP

LATEST = Wanted()
Act = Callable[[Access], Awaitable[Done]]


def at(seq: int) -> Wanted:
    return Wanted(PointKind.AT, seq)


async def unplanned(
    access: Access,
    wanted: Wanted = LATEST,
    *,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    return await operations.open_failover(
        access, NAME, wanted, ANN, planned=False, note=note, approve=approve, rehearse=rehearse
    )


async def test_an_unplanned_failover_to_its_end() -> None:
    scene = await protected()
    done = await unplanned(scene.access(), note="the building burns")
    assert (done.before.phase, done.state.phase) == (Phase.NONE, Phase.OPEN)
    assert done.chosen is not None
    assert done.chosen.point.seq == 3
    (record,) = (await scene.log()).records
    assert (record.host, record.by, record.note) == ("replica7", "ann", "the building burns")
    assert record.point is not None
    assert record.point.digest == done.chosen.point.digest
    vault = await open_vault(scene.bench.store, scene.bench.key)
    assert record.branch is not None
    branch = await vault.group(record.branch)
    assert branch.record.parent == record.parent(GROUP)
    assert await branch.ring.digest_key() == DIGEST_KEY
    with pytest.raises(Fenced, match="ann on replica7"):
        await scene.commit(9)
    done = await conclude(scene.access(), NAME, BOB, operation=Operation.COMMIT_FAILOVER)
    assert done.state.phase is Phase.COMMITTED
    standing = await operations.state(scene.access(), NAME)
    assert standing.state == done.state
    assert standing.whole
    for act in (Event.OPENED, Event.CANCELLED, Event.CHANGED, Event.TEST_OPENED):
        with pytest.raises(IllegalOperation, match="failover committed"):
            await EVENTS[act](scene.access())


async def test_changing_the_point_is_another_branch() -> None:
    scene = await protected()
    first = await unplanned(scene.access())
    second = await operations.change_point(scene.access(), NAME, at(1), BOB)
    assert second.state.point is not None
    assert second.state.point.seq == 1
    assert second.state.branch != first.state.branch
    assert second.chosen is not None
    assert second.chosen.lost.commits == 2
    assert second.chosen.lost.stored > 0
    vault = await open_vault(scene.bench.store, scene.bench.key)
    assert second.state.branch is not None
    parent = (await vault.group(second.state.branch)).record.parent
    assert parent is not None
    assert parent.seq == 1
    same = await operations.change_point(scene.access(), NAME, at(1), BOB)
    assert same.again
    assert len((await scene.log()).records) == 2


async def test_cancelling_gives_the_source_back() -> None:
    scene = await protected()
    await unplanned(scene.access())
    done = await conclude(
        scene.access(), NAME, ANN, note="false alarm", operation=Operation.CANCEL_FAILOVER
    )
    assert done.state.phase is Phase.CANCELLED
    assert not done.again
    assert (await conclude(scene.access(), NAME, ANN, operation=Operation.CANCEL_FAILOVER)).again
    with pytest.raises(IllegalOperation, match="cancelled"):
        await conclude(scene.access(), NAME, BOB, operation=Operation.CANCEL_FAILOVER)
    scene.author.close()
    scene.author = await scene.bench.opened()
    assert await scene.commit(4) == 4
    again = await unplanned(scene.access())
    assert again.state.phase is Phase.OPEN
    with pytest.raises(Fenced):
        await scene.commit(5)


async def test_a_planned_failover_wants_the_source_at_rest() -> None:
    scene = await protected()
    done = await operations.open_failover(scene.access(), NAME, LATEST, ANN, planned=True)
    assert done.state.planned
    with pytest.raises(IllegalOperation, match="planned") as refused:
        await operations.change_point(scene.access(), NAME, at(1), ANN)
    assert "failover cancel" in refused.value.hint


async def test_a_source_that_was_not_drained() -> None:
    scene = await protected()
    await scene.commit(4, in_gap=True)  # in the midst of a scan
    with pytest.raises(IllegalOperation, match="not show that the source was drained") as refused:
        await operations.open_failover(scene.access(), NAME, LATEST, ANN, planned=True)
    assert "failover unplanned" in refused.value.hint
    assert not (await scene.log()).records
    done = await operations.open_failover(
        scene.access(), NAME, LATEST, ANN, planned=True, drained=True
    )
    assert done.state.planned


async def test_points_by_kind() -> None:
    scene = await protected()
    await scene.commit(4, in_gap=True)

    async def chosen(wanted: Wanted) -> int:
        done = await unplanned(scene.access(), wanted, rehearse=True)
        assert done.rehearsed
        assert done.chosen is not None
        return done.chosen.point.seq

    for kind in (PointKind.LATEST, PointKind.LATEST_PROCESSED, PointKind.LATEST_APP):
        assert await chosen(Wanted(kind)) == 3
    assert await chosen(at(2)) == 2
    assert await chosen(at(4)) == 4
    vault = await open_vault(scene.bench.store, scene.bench.key)
    second = (await (await vault.group(GROUP)).log.signed(2)).header.stamp
    assert await chosen(Wanted(PointKind.AT, f"@{second + 1}")) == 2
    with pytest.raises(NotFound):
        await chosen(Wanted(PointKind.AT, "@5"))
    with pytest.raises(NotFound):
        await chosen(at(9))
    assert not (await scene.log()).records


async def test_a_test_runs_beside_replication() -> None:
    scene = await protected()
    tested = await operations.test(scene.access(), NAME, LATEST, ANN)
    assert tested.state.test is not None
    assert await scene.commit(4) == 4  # nobody is fenced
    with pytest.raises(IllegalOperation, match="a test is open"):
        await operations.test(scene.access(), NAME, LATEST, BOB)
    done = await conclude(
        scene.access(), NAME, BOB, note="it boots", operation=Operation.CLEANUP_TEST
    )
    assert done.state.test is None
    assert (await scene.log()).records[-1].note == "it boots"
    with pytest.raises(IllegalOperation, match="not failed over"):
        await conclude(scene.access(), NAME, ANN, operation=Operation.CLEANUP_TEST)
    await scene.commit(5)


async def test_an_open_test_does_not_hold_up_a_failover() -> None:
    scene = await protected()
    await operations.test(scene.access(), NAME, LATEST, ANN)
    done = await unplanned(scene.access())
    assert done.state.phase is Phase.OPEN
    assert done.state.test is not None
    cleaned = await conclude(scene.access(), NAME, ANN, operation=Operation.CLEANUP_TEST)
    assert cleaned.state.phase is Phase.OPEN


EVENTS: dict[Event, Act] = {
    Event.OPENED: unplanned,
    Event.CHANGED: lambda access: operations.change_point(access, NAME, at(1), BOB),
    Event.COMMITTED: lambda access: conclude(
        access, NAME, BOB, operation=Operation.COMMIT_FAILOVER
    ),
    Event.CANCELLED: lambda access: conclude(
        access, NAME, BOB, operation=Operation.CANCEL_FAILOVER
    ),
    Event.TEST_OPENED: lambda access: operations.test(access, NAME, LATEST, BOB),
    Event.TEST_CLEANED: lambda access: conclude(
        access, NAME, BOB, operation=Operation.CLEANUP_TEST
    ),
}
STATES: dict[str, tuple[Event, ...]] = {
    "none": (),
    "open": (Event.OPENED,),
    "committed": (Event.OPENED, Event.COMMITTED),
    "cancelled": (Event.OPENED, Event.CANCELLED),
    "testing": (Event.TEST_OPENED,),
}


@pytest.mark.parametrize("where", STATES)
@pytest.mark.parametrize("event", EVENTS)
async def test_every_operation_in_every_state(where: str, event: Event) -> None:
    scene = await protected()
    for each in STATES[where]:
        await EVENTS[each](scene.access())
    before = await scene.log()
    try:
        done = await EVENTS[event](scene.access())
    except IllegalOperation as refused:
        assert not before.state.allows(event)
        assert before.state.phase.value in refused.message
        assert refused.hint.startswith("allowed now:")
        assert await scene.log() == before
        return
    assert before.state.allows(event) or done.again
    assert (await scene.log()).state == done.state


async def test_what_is_at_stake_is_said_first() -> None:
    scene = await protected()
    said: list[Stake] = []

    def no(stake: Stake) -> None:
        said.append(stake)
        raise UsageError("not confirmed")

    with pytest.raises(UsageError):
        await unplanned(scene.access(), at(1), approve=no)
    (stake,) = said
    assert stake.operation is Operation.UNPLANNED_FAILOVER
    assert stake.irreversible  # the source may be alive
    text = "\n".join(stake.lines)
    for word in ("MAY BE ALIVE", "UTC (", "lost: 2 commits", "consistent", "cancel", "next: "):
        assert word in text
    assert not (await scene.log()).records
    scene.bench.clock.now += 3600
    assert not (await unplanned(scene.access(), rehearse=True)).stake.irreversible
    assert not (await scene.log()).records


async def test_a_point_ahead_of_the_clock_is_told_and_its_source_may_be_alive() -> None:
    scene = await protected()
    scene.bench.clock.now -= 7200
    stake = (await unplanned(scene.access(), rehearse=True)).stake
    assert any("ahead of this machine's clock" in line for line in stake.lines)
    assert stake.irreversible


async def test_only_the_operators_key_acts_and_any_recipient_looks() -> None:
    scene = await protected()
    stranger = generate("second", scene.bench.entropy).pinned(scene.bench.charter.pin())
    for act in EVENTS.values():
        with pytest.raises(WrongKey):
            await act(scene.access(key=stranger))


async def test_records_in_doubt_stop_all_but_the_failover_itself() -> None:
    scene = await protected()
    await scene.bench.store.put(layout.failover(GROUP, 1), [b"rubbish"])
    with pytest.raises(BrokenChain, match="00000001"):
        await operations.test(scene.access(), NAME, LATEST, ANN)
    done = await unplanned(scene.access())
    assert any("00000001" in note for note in done.notes)
    assert (await operations.state(scene.access(), NAME)).state.phase is Phase.OPEN
    assert (
        await conclude(scene.access(), NAME, ANN, operation=Operation.COMMIT_FAILOVER)
    ).state.phase is Phase.COMMITTED


async def test_by_the_branchs_id_it_is_the_same_failover() -> None:
    scene = await protected()
    done = await unplanned(scene.access())
    assert (await operations.state(scene.access(), GROUP.hex())).state == done.state


async def test_the_branch_becomes_a_machine_of_its_own() -> None:
    scene = await protected()
    await unplanned(scene.access())
    with pytest.raises(IllegalOperation, match="commit pending"):
        await conclude(scene.access(), NAME, ANN, operation=Operation.REPROTECT)
    await conclude(scene.access(), NAME, ANN, operation=Operation.COMMIT_FAILOVER)
    done = await conclude(scene.access(), NAME, ANN, operation=Operation.REPROTECT)
    assert done.state.phase is Phase.REPROTECTED
    with pytest.raises(Fenced, match="reprotected") as told:
        await scene.commit(9)
    assert "fail back to bring production home" in told.value.hint
    done = await conclude(scene.access(), NAME, ANN, operation=Operation.MIGRATE)
    assert done.state.phase is Phase.CLOSED
    assert done.stake.irreversible
    for act in EVENTS.values():
        with pytest.raises(IllegalOperation, match="for good") as refused:
            await act(scene.access())
        assert refused.value.hint == "allowed now: nothing"


def test_what_is_served_may_be_superseded() -> None:
    opened, branch = after(Event.OPENED), BRANCH.hex()
    assert superseded(opened, branch, 0) == ""
    assert superseded(after(Event.OPENED, Event.COMMITTED), branch, 0) == ""
    assert "another point" in superseded(after(Event.OPENED, Event.CHANGED), branch, 0)
    assert "cancelled" in superseded(after(Event.OPENED, Event.CANCELLED), branch, 0)
    tested = after(Event.TEST_OPENED)
    assert superseded(tested, "", 1) == ""
    assert "cleaned up" in superseded(tested, "", 2)
    assert "cleaned up" in superseded(opened, "", 1)


async def test_damage_at_the_tail_does_not_keep_an_older_point_from_being_taken() -> None:
    scene = await protected()
    for seq in (2, 3):
        key = layout.commit(GROUP, seq)
        data = await scene.bench.store.get(key)
        spoiled = bytearray(data)
        spoiled[100] ^= 1
        await scene.bench.store.delete(key)
        await scene.bench.store.put(key, [bytes(spoiled)])
    done = await unplanned(scene.access(), at(1))
    assert done.state.point is not None
    assert done.state.point.seq == 1
    assert done.chosen is not None
    assert done.chosen.lost.commits == 2
    assert (
        await conclude(scene.access(), NAME, ANN, operation=Operation.COMMIT_FAILOVER)
    ).state.phase is Phase.COMMITTED
