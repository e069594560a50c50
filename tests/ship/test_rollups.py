"""Rollups: written in time, caught up with after a crash, the same to read as the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stages.errors import OutcomeUnknown
from stages.ship import rollups
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.vault import layout, rollup
from stages.vault.container import header_reach
from tests.ship.support import GROUP, Author, Bench, Content, block, disk
from tests.whole.reading import open_group, read_point
from tests.whole.small import SPAN, changed, small_rollups


@pytest.fixture(name="short")
def _short() -> Iterator[None]:
    with small_rollups():
        yield


async def begun(bench: Bench, content: Content) -> Author:
    content.resize(0, 20)
    await bench.found()
    author = await bench.opened()
    await author.disks(disk(0, 20))
    return author


async def commits(author: Author, content: Content, count: int) -> None:
    for _ in range(count):
        seq = author.ledger.tail.seq
        await author.commit(content.batch(0, {seq % 20: block(seq)}))


async def check(bench: Bench, content: Content) -> None:
    """Every rollup there can be is there, and holds what the log holds."""
    group = await open_group(bench.store, bench.key)
    for last in range(rollup.SPAN, group.tail + 1, rollup.SPAN):
        key = layout.rollup(GROUP, last)
        heads = rollup.decode(await bench.store.get(key), key)
        for seq, head in enumerate(heads, last - rollup.SPAN + 1):
            whole = await bench.store.get(layout.commit(GROUP, seq))
            assert head == whole[: header_reach(whole)]
    assert (await read_point(group, group.tail))["d0"] == content.disks[0]


async def test_at_its_real_size() -> None:
    bench, content = Bench(), Content()
    author = await begun(bench, content)
    batches = [content.batch(0, {at % 20: block(at)}) for at in range(rollup.SPAN + 3)]
    await author.ship([author.sealed([batch]) for batch in batches])
    assert author.ledger.tail.seq == rollup.SPAN + 3
    await check(bench, content)
    author.close()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("lives", [[1] * 9, [4, 4], [3, 1, 5], [2, 7], [9]], ids=str)
async def test_whatever_lives_the_commits_were_made_in(lives: list[int]) -> None:
    """Each call of ``commit`` is a stage of its own, which fetches what it does not have."""
    bench, content = Bench(), Content()
    author = await begun(bench, content)
    for count in lives:
        author.close()
        author = await bench.opened()
        await commits(author, content, count)
    await check(bench, content)
    author.close()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("after", [False, True])
async def test_one_that_could_not_be_written_is_caught_up_with(after: bool) -> None:
    bench, content = Bench(), Content()
    author = await begun(bench, content)
    await commits(author, content, SPAN - 1)
    author.close()
    fault = Fault(after=OutcomeUnknown) if after else Fault(before=OutcomeUnknown)

    def rule(found: Operation) -> Fault | None:
        return fault if "/rollups/" in found.key and found.name == "put" else None

    dying = await bench.opened(FaultStore(bench.store, FaultPlan(rule), bench.clock))
    with pytest.raises(OutcomeUnknown):
        await commits(dying, content, 1)
    dying.close()
    key = layout.rollup(GROUP, SPAN)
    assert (await bench.store.info(key) is not None) == after

    again = await bench.opened()
    await commits(again, content, 1)
    await check(bench, content)
    again.close()


@pytest.mark.usefixtures("short")
async def test_one_that_would_be_too_large_is_left_out() -> None:
    bench, content = Bench(), Content()
    author = await begun(bench, content)
    with changed((rollups, "MAX_SIZE", 100)):
        await commits(author, content, SPAN + 1)
    assert await bench.store.info(layout.rollup(GROUP, SPAN)) is None
    group = await open_group(bench.store, bench.key)
    assert (await read_point(group, SPAN + 1))["d0"] == content.disks[0]
    author.close()
