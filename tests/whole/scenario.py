"""One scenario that has everything in it: segments, references, zeros, a checkpoint, a rollup."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from stages.model import BLOCK
from tests.whole.reading import check
from tests.whole.small import eager_checkpoints, small_pages, small_rollups
from tests.whole.world import KIB, Process, Tuning, World

Make = Callable[[World], Process]


@contextmanager
def small() -> Iterator[None]:
    """The sizes that the scenario is made for."""
    with ExitStack() as stack:
        for each in (small_pages(), small_rollups(), eager_checkpoints()):
            stack.enter_context(each)
        yield


def first_disks(world: World) -> None:
    """Two disks: content, a hole, blocks that occur twice, also across disks."""
    dice = random.Random(7)
    doubled = dice.randbytes(4 * BLOCK)
    world.disks["a"] = bytearray(
        dice.randbytes(14 * BLOCK) + bytes(12 * BLOCK) + doubled + dice.randbytes(5 * BLOCK + 700)
    )
    world.disks["b"] = bytearray(doubled + dice.randbytes(12 * BLOCK) + doubled)
    world.sparse.add("a")


def change_disks(world: World) -> None:
    """Some content changes, some becomes zero, some a copy of other content."""
    dice = random.Random(8)
    a, b = world.disks["a"], world.disks["b"]
    a[3 * BLOCK : 12 * BLOCK] = dice.randbytes(9 * BLOCK)
    a[26 * BLOCK : 29 * BLOCK] = bytes(3 * BLOCK)
    b[5 * BLOCK : 14 * BLOCK] = a[: 9 * BLOCK]
    b[15 * BLOCK : 17 * BLOCK] = bytes(2 * BLOCK)


def started(tuning: Tuning) -> World:
    """Before the first run."""
    world = World(3, tuning)
    first_disks(world)
    return world


def after_one_run(tuning: Tuning) -> World:
    """One good run, and changes since."""
    world = started(tuning)
    world.protect()
    change_disks(world)
    return world


BEGINNINGS = {"first run": started, "second run": after_one_run}
TUNING = Tuning(seal_bytes=32 * KIB, inline=8 * KIB, in_flight=2)


def worlds(begin: Callable[[Tuning], World], tuning: Tuning) -> Iterator[World]:
    """As many equal worlds as are asked for; only the order of their tasks differs."""
    world = begin(tuning)
    for seed in itertools.count():
        made = copy.deepcopy(world)
        made.seed = seed
        yield made


def heals(world: World, number: int = 0) -> None:
    """A healthy run succeeds, and nothing was skipped or lost on the way.

    For every other ``number`` the disks go back to what they held at first: what a failed run has
    left behind must not make the next one believe that this is in the vault already. For every
    fourth all points are looked at, else the newest.
    """
    outcome = world.protect()
    if number % 2 == 0:
        for name, content in world.attempts[0].items():
            world.disks[name][:] = content
        outcome = world.protect()
    check(world, None if number % 4 == 0 else [outcome.seq])
