"""The old source: a running writer is fenced, one that starts is told, cancelling frees both."""

from __future__ import annotations

import pytest

from stages.errors import BrokenChain, Fenced, StoreUnreachable
from stages.recover.opened import OpenedVault, open_vault
from stages.store.faults import LOST_REQUEST, FaultPlan, FaultStore, Operation
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.branches import branch_exists, fence, found_branch, is_fenced
from stages.vault.failover_log import append_failover, load_failovers
from stages.vault.failovers import Event, FailoverPoint, FailoverRecord
from stages.vault.records import Parent
from stages.vault.sealing import Scope
from tests.ship.support import DIGEST_KEY, FOLDER, GROUP, Author, Bench, Content, block, disk

BRANCH = b"the branch's gid"


async def protected() -> tuple[Bench, Author, Content]:
    """A vault with two commits of a writer that goes on."""
    bench = Bench()
    await bench.found()
    author = await bench.opened()
    await author.disks(disk(0, 8))
    content = Content()
    content.resize(0, 8)
    await author.commit(content.batch(0, {0: block(1)}))
    await author.commit(content.batch(0, {1: block(2)}))
    return bench, author, content


async def write(bench: Bench, event: Event, store: ObjectStore | None = None) -> None:
    """One record of the operator's."""
    store = store or bench.store
    log = await load_failovers(store, bench.scope, bench.charter)
    vault = await open_vault(bench.store, bench.key)
    group = await vault.group(GROUP)
    tail = await group.log.signed(group.tail)
    point = FailoverPoint(group.tail, tail.link, tail.header.stamp)
    now = bench.clock.wall_us()
    made = FailoverRecord(1, bytes(32), event, now, "replica7", "ann", point, BRANCH)
    assert await append_failover(store, bench.scope, bench.key.signer, log, made) is not None


async def fence_it(bench: Bench) -> int:
    return await fence(bench.store, bench.scope, bench.key.signer, bench.clock.wall_us())


async def test_a_running_writer_is_fenced_at_its_next_commit() -> None:
    bench, author, content = await protected()
    await write(bench, Event.OPENED)
    await fence_it(bench)
    with pytest.raises(Fenced, match=r"failed over by ann on replica7 at .* UTC, point #2") as told:
        await author.commit(content.batch(0, {2: block(3)}))
    assert "backstay failover cancel" in told.value.hint


async def test_a_writer_that_starts_again_is_told_and_leaves_nothing() -> None:
    bench, author, _ = await protected()
    author.close()
    await write(bench, Event.OPENED)
    epoch = await fence_it(bench)
    for _ in range(3):
        again = bench.author()
        with pytest.raises(Fenced, match="failed over by ann on replica7"):
            await again.open()
        again.close()
    assert await bench.store.info(layout.term(GROUP, epoch + 1)) is None
    await write(bench, Event.COMMITTED)
    again = bench.author()
    with pytest.raises(Fenced, match="committed") as told:
        await again.open()
    assert "do not start the guest" in told.value.hint
    again.close()


async def test_the_record_alone_stops_a_start() -> None:
    bench, author, _ = await protected()
    author.close()
    await write(bench, Event.OPENED)  # a crash before the fence
    with pytest.raises(Fenced, match="failed over"):
        await bench.opened()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_after_a_cancel_the_writer_goes_on_by_itself(running: bool) -> None:
    bench, author, content = await protected()
    await write(bench, Event.OPENED)
    await fence_it(bench)
    if running:
        with pytest.raises(Fenced):
            await author.commit(content.batch(0, {2: block(3)}))
    author.close()
    await write(bench, Event.CANCELLED)
    again = await bench.opened()
    seq = again.ledger.tail.seq
    assert seq == (3 if running else 2)  # what was put counts: nothing is lost by a cancel
    assert await again.commit(content.batch(0, {3: block(4)})) == seq + 1
    again.close()
    group = await (await open_vault(bench.store, bench.key)).group(GROUP)
    assert group.tail == seq + 1
    assert len(await group.log.stretch(1, seq + 1, None)) == seq + 1


async def test_one_that_runs_on_over_a_cancelled_failover_is_told_to_start_again() -> None:
    bench, author, content = await protected()
    await write(bench, Event.OPENED)
    await fence_it(bench)
    await write(bench, Event.CANCELLED)
    with pytest.raises(Fenced, match="has begun") as told:
        await author.commit(content.batch(0, {2: block(3)}))
    assert "cancelled meanwhile" in told.value.hint


async def test_a_start_between_record_and_fence_does_not_slip_through() -> None:
    """Whatever is between the two looks of a start: it ends with the error or under the fence."""
    bench, author, _ = await protected()
    author.close()
    for moment in range(40):
        trial = bench.clone()
        done = await _race(trial, moment)
        if not done:
            assert moment > 5
            return
    raise AssertionError("a start takes more than 40 operations")


async def _race(bench: Bench, moment: int) -> bool:
    """A start with a failover opened before its operation ``moment``; False if it had ended."""
    happened = False

    class Racing(FaultStore):
        async def _begin(self, name: str, key: str) -> tuple[Operation, object]:  # type: ignore[override]
            nonlocal happened
            found = await super()._begin(name, key)
            if found[0].number == moment and not happened:
                happened = True
                await write(bench, Event.OPENED)
                await fence_it(bench)
            return found

    store = Racing(bench.store, FaultPlan(), bench.clock)
    author = bench.author(store, folder=FOLDER)
    content = Content()
    content.resize(0, 8)
    try:
        await author.open()
        if happened:
            await author.commit(content.batch(0, {2: block(3)}))
    except Fenced as error:
        assert "failed over by ann" in error.message
        return True
    finally:
        author.close()
    assert not happened, "it went on over a failover"
    return False


async def test_fencing_twice_is_fencing_once() -> None:
    bench, author, _ = await protected()
    assert not await is_fenced(bench.store, bench.scope, bench.key.signer.public)
    epoch = await fence_it(bench)
    assert epoch == author.session.keys.epoch + 1
    assert await is_fenced(bench.store, bench.scope, bench.key.signer.public)
    assert await fence_it(bench) == epoch
    author.close()
    again = await bench.opened()  # nothing was recorded: it is not failed over
    assert again.session.keys.epoch == epoch + 1
    assert not await is_fenced(bench.store, bench.scope, bench.key.signer.public)
    assert await fence_it(bench) == epoch + 2
    again.close()


async def test_a_writer_whose_records_are_damaged_does_not_go_on() -> None:
    bench, author, _ = await protected()
    author.close()
    await bench.store.put(layout.failover(GROUP, 1), [b"rubbish"])
    with pytest.raises(BrokenChain, match="00000001"):
        await bench.opened()


async def test_a_branch_is_a_group_that_readers_open() -> None:
    bench, _, _ = await protected()
    vault = await open_vault(bench.store, bench.key)
    parent = await _parent(vault)
    scope = Scope(bench.charter.vault, BRANCH, bench.charter.cipher)

    async def found(store: ObjectStore) -> None:
        await found_branch(
            store, scope, bench.charter, bench.key.signer, bench.entropy, parent, DIGEST_KEY, 5
        )

    for at in range(10):  # a crash anywhere, then once more

        def rule(operation: Operation, at: int = at) -> object:
            return LOST_REQUEST if operation.number >= at else None

        try:
            await found(FaultStore(bench.store, FaultPlan(rule), bench.clock))  # type: ignore[arg-type]
        except StoreUnreachable:
            continue
        break
    assert await branch_exists(bench.store, scope, bench.charter, parent)
    group = await vault.group(BRANCH)
    assert (group.record.parent, group.record.created, group.tail) == (parent, 5, 0)
    assert await group.ring.digest_key() == DIGEST_KEY
    assert not vault.problems


async def _parent(vault: OpenedVault) -> Parent:
    group = await vault.group(GROUP)
    return Parent(GROUP, group.tail, (await group.log.signed(group.tail)).link)
