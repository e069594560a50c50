"""Taking a log over, being fenced, a vault that was rolled back (R12, R13, R15)."""

from __future__ import annotations

import pytest

from stages.errors import (
    BrokenChain,
    Fenced,
    NotAdmitted,
    OutcomeUnknown,
)
from stages.ship import session as session_module
from stages.stage import crew
from stages.store.faults import Fault, Operation
from stages.vault import layout
from tests.ship.scene import COPY, LOST, Scene
from tests.ship.support import FOLDER, GROUP, Bench, block
from tests.whole.world import simulate


async def test_a_commit_by_another_admitted_writer_fences() -> None:
    scene = Scene(2)
    author = await scene.begin()
    author.ledger.checkpoint_state()
    scene.bench.files.copy_tree(FOLDER, COPY)
    stranger = scene.bench.author(folder=COPY, who=1)
    await stranger.open()
    await stranger.commit(scene.content.batch(0, {5: block(500)}))
    stranger.close()

    with pytest.raises(Fenced) as raised:
        await scene.commit(author)
    assert raised.value.subject == layout.commit(GROUP, 3)
    author.close()
    again = scene.bench.author()
    with pytest.raises(Fenced):
        await again.open()
    again.close()


async def test_what_lies_in_the_log_by_nobody_is_told_as_such() -> None:
    scene = Scene(2)
    author = await scene.begin()
    author.ledger.checkpoint_state()
    scene.bench.files.copy_tree(FOLDER, COPY)
    stranger = scene.bench.author(folder=COPY, who=2)
    await stranger.open()
    await stranger.commit(scene.content.batch(0, {5: block(500)}))
    stranger.close()
    with pytest.raises(NotAdmitted, match="place in the log"):
        await scene.commit(author)
    author.close()
    again = scene.bench.author()
    with pytest.raises(NotAdmitted):
        await again.open()
    again.close()


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(5000)])
async def test_junk_in_the_log_is_told_as_such(junk: bytes) -> None:
    scene = Scene(1)
    author = await scene.begin()
    await scene.bench.store.put(layout.commit(GROUP, 2), [junk])
    with pytest.raises(NotAdmitted):
        await scene.commit(author)
    author.close()


def test_a_writer_that_is_not_admitted_is_stopped_before_it_writes() -> None:
    bench = Bench()
    bench.writer(who=1).check_admitted()
    with pytest.raises(NotAdmitted) as raised:
        bench.writer(who=2).check_admitted()
    assert bench.signers[2].public.hex() in raised.value.hint


@pytest.mark.parametrize("gone", [1, 2, 3])
@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_vault_that_was_rolled_back(gone: int, snapshot: bool) -> None:
    """Its newest commits are missing. The last one, if nothing proves it was there, may be new."""
    scene = Scene(4)
    author = await scene.begin()
    if snapshot:
        author.ledger.checkpoint_state()
    author.close()
    for seq in range(5 - gone, 5):
        assert await scene.bench.store.delete(layout.commit(GROUP, seq))

    again = scene.bench.author()
    if snapshot or gone > 1:
        with pytest.raises(BrokenChain) as raised:
            await again.open()
        assert raised.value.hint
        again.close()
        return
    await again.open()
    assert again.ledger.tail.seq == 3
    known = again.ledger.blocks(0, 0, 20)[:, 0]
    assert known[:3].all()
    assert not known[3], "what the lost commit said of block 3 is not believed"
    again.close()


async def test_a_later_term_fences_after_the_win() -> None:
    """The commit is there and is its writer's own: the next start finds that out."""
    scene = Scene(1)
    author = await scene.begin()
    author.ledger.checkpoint_state()
    scene.bench.files.copy_tree(FOLDER, COPY)
    (await scene.bench.opened(folder=COPY)).close()
    with pytest.raises(Fenced, match="has begun"):
        await scene.commit(author)
    author.close()
    again = await scene.bench.opened()
    assert again.ledger.tail.seq == 2
    assert await scene.commit(again) == 3
    await scene.check(3)
    again.close()


@pytest.mark.parametrize("seed", range(8))
def test_an_epoch_belongs_to_one(seed: int) -> None:
    """Many begin at once: each gets an epoch of its own, or none."""

    async def race() -> None:
        scene = Scene(1)
        author = await scene.begin()
        author.ledger.checkpoint_state()
        author.close()
        won: list[int] = []

        async def begin(number: int) -> None:
            scene.bench.files.copy_tree(FOLDER, f"{COPY}{number}")
            one = scene.bench.author(folder=f"{COPY}{number}")
            try:
                await one.open()
                won.append(one.session.keys.epoch)
            except Fenced:
                pass
            finally:
                one.close()

        async with crew() as nursery:
            for number in range(6):
                nursery.start_soon(begin, number)
        assert len(set(won)) == len(won)
        assert sorted(won) == list(range(2, 2 + len(won)))
        assert len(won) >= session_module._CLAIM_TRIES // 2

    simulate(seed, race)


async def test_an_epoch_whose_claim_was_interrupted_is_left_out() -> None:
    scene = Scene(1)
    author = await scene.begin()
    author.close()
    for number in range(3):

        def wrapped(found: Operation, number: int = number) -> Fault | None:
            key = layout.wrapped_key(GROUP, 2 + number, scene.bench.key.box.public, "index")
            return LOST if found.key == key else None

        dying = scene.bench.author(scene.faulty(wrapped))
        with pytest.raises(OutcomeUnknown):
            await dying.open()
        dying.close()
    again = await scene.bench.opened()
    assert again.session.keys.epoch == 5
    assert await scene.commit(again) == 2
    await scene.check(2)
    again.close()


async def test_many_starts_without_a_commit_do_not_make_the_next_one_slow() -> None:
    scene = Scene(1)
    author = await scene.begin()
    author.close()
    for _ in range(60):
        (await scene.bench.opened()).close()
    asked: list[Operation] = []

    def count(found: Operation) -> None:
        asked.append(found)

    again = await scene.bench.opened(scene.faulty(count))
    assert again.session.keys.epoch == 62
    assert len(asked) < 29
    again.close()
