"""Which rollups a keeper makes, by a definition that looks at every commit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.keeper import reach
from stages.keeper.reach import Inventory, Needs, Thing, missing_rollups, unreachable
from tests.whole.small import changed

SPAN = 4
THING = Thing(1, 0)


@given(st.data())
def test_those_whose_commits_are_all_there_and_that_are_of_use(data: st.DataObject) -> None:
    floor = data.draw(st.integers(1, 40))
    tail = data.draw(st.integers(floor, 60))
    newest = data.draw(st.integers(0, tail))
    cuts = data.draw(st.lists(st.integers(1, max(1, floor - 1)), max_size=6, unique=True))
    pairs = sorted(cuts)[: len(cuts) // 2 * 2]
    islands = tuple(zip(pairs[::2], pairs[1::2], strict=True)) if floor > 1 else ()
    before = data.draw(st.sets(st.integers(1, floor - 1))) if floor > 1 else set()
    ends = data.draw(st.sets(st.sampled_from(range(SPAN, 64, SPAN))))
    there = Inventory(
        log=dict.fromkeys(before, THING), rollups={end: THING for end in ends if end <= tail}
    )
    needs = Needs(floor, tail, 1, 0, islands=islands)
    with changed((reach, "SPAN", SPAN)):
        found = missing_rollups(there, needs, newest, 100)
        expected = []
        for end in range(SPAN, newest + 1, SPAN):
            span = range(end - SPAN + 1, end + 1)
            held = all(seq >= floor or seq in before for seq in span)
            inside = any(first <= seq <= last for seq in span for first, last in islands)
            if held and (end >= floor or inside) and end not in there.rollups:
                expected.append(end)
        assert found == sorted(expected, reverse=True)
        assert missing_rollups(there, needs, newest, 2) == found[:2]
        # None of them goes again with the next run.
        made = Inventory(log=there.log, rollups=dict.fromkeys(found, THING))
        assert not [
            each for each in unreachable(bytes(16), made, needs, None) if each.kind == "rollups"
        ]
