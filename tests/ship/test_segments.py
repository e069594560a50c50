"""A commit of several segments: references of a later one see what the earlier ones made."""

from __future__ import annotations

from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pytest

from stages.model import BLOCK, Disk
from stages.store.memory import MemoryStore
from tests.vault.author import Author, batch_of
from tests.vault.reading import open_group, read_point
from tests.vault.support import People, noise_block, put_charter, seeded_machine

ROOT, DATA = Disk(0, "root", 12 * BLOCK), Disk(1, "data", 4 * BLOCK)
OLD, NEW, OTHER = noise_block("old"), noise_block("new"), noise_block("other")


async def begun(stack: ExitStack) -> tuple[Author, People]:
    people = People.of("segments")
    store = MemoryStore()
    await put_charter(store, people.charter, people.operator.signer)
    folder = stack.enter_context(TemporaryDirectory())
    author = Author(people, store, folder, seeded_machine("segments"))
    stack.callback(author.ledger.close)
    await author.begin()
    await author.describe(1, ROOT, DATA)
    return author, people


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_checkpoint_of_the_writers_record_equals_its_log(restarted: bool) -> None:
    """Content, zeros and references of earlier segments are what later ones refer to."""
    with ExitStack() as stack:
        author, people = await begun(stack)
        await author.commit(
            (batch_of(0, {0: OLD, 1: OLD, 2: OLD, 3: OTHER}), batch_of(1, {0: OLD}))
        )
        await author.commit(
            (batch_of(0, {0: NEW}, zero=((1, 1),)), batch_of(1, {0: OTHER})),
            (batch_of(0, refs=((4, 0, 0), (5, 0, 1), (6, 0, 2), (7, 1, 0))),),
            (batch_of(0, {2: NEW}, refs=((8, 0, 4), (9, 0, 5), (3, 0, 2))), batch_of(1, {1: OLD})),
            (batch_of(1, refs=((2, 0, 8), (3, 0, 7))), batch_of(0, refs=((10, 0, 3), (11, 1, 1)))),
        )
        if restarted:  # from what was written down, not from what is in memory
            author.ledger.checkpoint_state()
            author.ledger.recover()
        await author.checkpoint()
        zero = bytes(BLOCK)
        root = [NEW, zero, NEW, NEW, NEW, zero, OLD, OTHER, NEW, zero, NEW, OLD]
        expected = {"root": b"".join(root), "data": b"".join([OTHER, OLD, NEW, OTHER])}
        group = await open_group(author.store, people.operator)
        for checkpoints in (True, False):
            disks, damage = await read_point(group, 2, checkpoints=checkpoints)
            assert not damage
            assert disks == expected, checkpoints
        assert not group.log.ignored
