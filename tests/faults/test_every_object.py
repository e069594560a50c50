"""Every object of a vault spoilt in every way: right bytes, or a refusal that names the object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import histories, tamper
from tests.faults.spoiling import FRAME_BYTES, Judge, Spoilt, kind_of, spread, ways
from tests.faults.world import World, copied

# The newest point can be read without them: restored exactly, verified as whole, and listed.
NOT_NEEDED = {"group record", "digest key", "term", "rollup", "manifest", "checkpoint pages"}
KINDS = (
    *sorted(NOT_NEEDED),
    "charter",
    "machine record",
    "data key",
    "index key",
    "data",
    "commit",
)


@pytest.fixture(scope="module")
def checkpointed(place: Path) -> World:
    return histories.with_checkpoint(place / "checkpointed")


@pytest.fixture(scope="module")
def rolled_up(place: Path) -> World:
    return histories.with_rollup(place / "rolled-up")


@pytest.fixture
def judge(checkpointed: World, place: Path) -> Iterator[Judge]:
    with copied(checkpointed, place / "spoilt") as world:
        yield Judge(world)


@pytest.fixture
def long_judge(rolled_up: World, place: Path) -> Iterator[Judge]:
    with copied(rolled_up, place / "spoilt") as world:
        yield Judge(world)


def all_ways(world: World, keys: list[str], least: int) -> list[Spoilt]:
    found = [ways(key, world.path(f"vault/{key}").read_bytes()) for key in keys]
    return list(spread(found, least))


def needed(judge: Judge, spoilt: Spoilt) -> bool:
    """Whether the newest point needs the object, by what it is."""
    kind = kind_of(spoilt.key)
    own = tamper.private(judge.world, tamper.OPERATOR).box.public.hex()
    if kind in NOT_NEEDED:
        return False
    if kind in ("data key", "index key"):
        # The first epoch's commits stand in the checkpoint, its frames do not.
        return own in spoilt.key and not (kind == "index key" and "/00000001/" in spoilt.key)
    if kind in ("commit", "machine record"):
        newest = {"commit": judge.newest, "machine record": 2}[kind]
        return int(spoilt.key.rpartition("/")[2]) == newest
    return True


def hold(judge: Judge, spoilt: Spoilt, check: Callable[[Judge, Spoilt], None]) -> None:
    tamper.change(judge.world, f"vault/{spoilt.key}", spoilt.data)
    check(judge, spoilt)
    judge.world.mend()


def promises(judge: Judge, spoilt: Spoilt) -> None:
    """What holds for any object."""
    if judge.is_unseen(spoilt):
        assert not judge.restores(spoilt)
        return
    restored = judge.restores(spoilt)
    assert restored != needed(judge, spoilt), (spoilt.key, spoilt.how)
    assert judge.verifies(spoilt) == (restored, True), (spoilt.key, spoilt.how)
    if restored:
        return
    lost = judge.salvages(spoilt)
    if kind_of(spoilt.key) == "data" and "flipped" in spoilt.how:
        assert lost is not None
        assert 0 < lost <= FRAME_BYTES
    elif kind_of(spoilt.key) in ("data", "data key"):
        assert lost


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rollup"])
def test_an_object_is_spoilt(judge: Judge, kind: str) -> None:
    keys = [key for key in judge.world.objects() if kind_of(key) == kind]
    assert keys
    for spoilt in all_ways(judge.world, keys, 4):
        hold(judge, spoilt, promises)


def test_no_kind_is_forgotten(checkpointed: World, rolled_up: World) -> None:
    kinds = {kind_of(key) for world in (checkpointed, rolled_up) for key in world.objects()}
    assert kinds == set(KINDS)


def test_points_before_the_damage_are_whole(judge: Judge) -> None:
    """A commit, its data and its keys cost the points from it on, none before."""
    for name in (f"log/{judge.newest:015d}", "data/00000002/000000000000"):
        key = judge.world.object(name).removeprefix("vault/")
        tamper.change(judge.world, f"vault/{key}", None)
        said = judge.world.restore("out", "--at", f"#{judge.world.names['first']}")
        assert said.code == 0, said
        assert judge.world.is_as_protected("out", like="first-")
        judge.forget()
        judge.world.mend()


def test_a_rollup_is_spoilt(long_judge: Judge) -> None:
    keys = [key for key in long_judge.world.objects() if kind_of(key) == "rollup"]
    for spoilt in all_ways(long_judge.world, keys, 4):
        hold(long_judge, spoilt, promises)


def test_a_commit_of_a_long_log_is_spoilt(long_judge: Judge) -> None:
    """What a rollup has is read from there; what it has not is a hole, which salvage goes round."""

    def check(judge: Judge, spoilt: Spoilt) -> None:
        if judge.is_unseen(spoilt):
            assert not judge.restores(spoilt)
            return
        rolled = int(spoilt.key.rpartition("/")[2]) <= histories.SPAN
        assert judge.restores(spoilt) == rolled
        assert judge.verifies(spoilt) == (rolled, True)
        if not rolled:
            judge.salvages(spoilt)

    world = long_judge.world
    numbers = (1, 100, histories.SPAN, histories.SPAN + 1, world.tail - 1, world.tail)
    keys = [world.commit(number).removeprefix("vault/") for number in numbers]
    for spoilt in all_ways(world, keys, 3):
        hold(long_judge, spoilt, check)
