"""What is worth moving: planned from sizes alone, so any sizes may come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.keeper.reach import (
    LEAST,
    MANY,
    SMALL,
    Inventory,
    Moves,
    Needs,
    Thing,
    worth_moving,
)

FLOOR = 100
NO_LIMIT = 1 << 60
SIZES = st.tuples(st.integers(1, 8 * SMALL), st.integers(0, 100))  # bytes, percent needed


def _live(size: int, percent: int) -> int:
    return max(1, size * percent // 100)


@st.composite
def vaults(draw: st.DrawFn) -> tuple[Inventory, Needs]:
    """Data objects, some of them named after the floor; tails, some before it; packs."""
    data = draw(st.dictionaries(st.tuples(st.integers(1, 3), st.integers(0, 9)), SIZES))
    tails = draw(st.dictionaries(st.integers(1, 2 * FLOOR), SIZES))
    packs = draw(st.dictionaries(st.integers(1, 40), SIZES, max_size=2 * MANY))
    island = draw(st.integers(1, FLOOR - 1))
    there = Inventory(
        data={name: Thing(size, 0) for name, (size, _) in data.items()},
        log={seq: Thing(size, 0) for seq, (size, _) in tails.items() if seq < FLOOR},
        packs={number: Thing(size, 0) for number, (size, _) in packs.items()},
    )
    needs = Needs(
        floor=FLOOR,
        tail=2 * FLOOR,
        tail_epoch=3,
        newest_base=FLOOR,
        islands=((island, FLOOR - 1),),
        live_data={name: _live(*each) for name, each in data.items()},
        live_tails={seq: _live(*each) for seq, each in tails.items()},
        live_packs={number: _live(*each) for number, each in packs.items()},
        named=draw(st.sets(st.sampled_from(sorted(data)))) if data else set(),
        packs=packs.keys(),
        packed={number: size for number, (size, _) in packs.items()},
    )
    return there, needs


def holders(there: Inventory, needs: Needs) -> dict[tuple[str, object], tuple[int, int]]:
    """Bytes needed and size of all that may be moved out of, told apart from the planner."""
    first = needs.islands[0][0]
    found: dict[tuple[str, object], tuple[int, int]] = {}
    for name, live in needs.live_data.items():
        if name not in needs.named:
            found["data", name] = live, there.data[name].size
    for seq, live in needs.live_tails.items():
        if seq < first:
            found["tails", seq] = live, there.log[seq].size
    for number, live in needs.live_packs.items():
        found["packs", number] = live, needs.packed[number]
    return found


def picked(moves: Moves) -> set[tuple[str, object]]:
    """As ``holders`` names them."""
    kinds = {"data": moves.data, "tails": moves.tails, "packs": moves.packs}
    return {(kind, name) for kind, names in kinds.items() for name in names}


@given(vaults(), st.sampled_from((0.0, 0.04, 0.5)))
def test_enough_is_moved_and_no_more(vault: tuple[Inventory, Needs], waste: float) -> None:
    there, needs = vault
    known = holders(there, needs)
    moves = worth_moving(there, needs, waste=waste, most=NO_LIMIT)
    chosen = picked(moves)
    assert chosen <= known.keys(), "what a later point needs, or has to stay, stays where it is"
    assert moves.live == sum(known[each][0] for each in chosen)
    assert moves.freed == sum(size - live for live, size in map(known.__getitem__, chosen))
    small = {each for each in known if each[0] == "packs" and known[each][1] < SMALL}
    joined = small if len(small) >= MANY else set()
    assert joined <= chosen
    worth = {
        each: size - live
        for each, (live, size) in known.items()
        if size - live >= LEAST * live and each not in joined
    }
    assert chosen - joined <= worth.keys()
    allowed = int(waste * sum(live for live, _ in known.values()))
    left = sum(free for each, free in worth.items() if each not in chosen)
    assert left <= allowed
    if moved := chosen - joined:  # and without the last of them it would not have been enough
        fullest = max(moved, key=lambda each: known[each][0] / known[each][1])
        assert left + worth[fullest] > allowed
        emptier = [each for each in worth if each not in chosen and _fuller(known, fullest, each)]
        assert not emptier, "most is freed for a byte moved where least is needed"


def _fuller(
    known: dict[tuple[str, object], tuple[int, int]], one: tuple[str, object], other: object
) -> bool:
    live, size = known[one]
    others, of = known[other]  # type: ignore[index]
    return live * of > others * size


@given(vaults(), st.integers(0, 40 * SMALL))
def test_never_more_than_it_may(vault: tuple[Inventory, Needs], most: int) -> None:
    moves = worth_moving(*vault, waste=0.0, most=most)
    assert moves.live <= most


@given(vaults(), st.sampled_from((0.0, 0.04)))
def test_what_was_moved_is_not_moved_again(vault: tuple[Inventory, Needs], waste: float) -> None:
    """After a run its packs are full: the next one, with nothing let go meanwhile, rests."""
    there, needs = vault
    moves = worth_moving(there, needs, waste=waste, most=NO_LIMIT)
    packs = {n: live for n, live in needs.live_packs.items() if n not in moves.packs}
    packed = {n: size for n, size in needs.packed.items() if n not in moves.packs}
    if moves.live:
        packs[1000] = packed[1000] = moves.live
    after = Needs(
        floor=needs.floor,
        tail=needs.tail,
        tail_epoch=needs.tail_epoch,
        newest_base=needs.newest_base,
        islands=needs.islands,
        live_data={n: live for n, live in needs.live_data.items() if n not in moves.data},
        live_tails={n: live for n, live in needs.live_tails.items() if n not in moves.tails},
        live_packs=packs,
        named=needs.named,
        packs=packs.keys(),
        packed=packed,
    )
    again = worth_moving(there, after, waste=waste, most=NO_LIMIT)
    assert (again.live, again.freed) == (0, 0)
