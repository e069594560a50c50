"""The Nth operation on the state folder fails, for every N: an error in words; the next run heals."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stages.errors import BackstayError, NoSpace, StateError
from tests.ports.watched import Tripwire
from tests.whole.scenario import BEGINNINGS, TUNING, heals, small, worlds
from tests.whole.world import STATE, Process, Tuning, World

# Nothing depends on these any more when they are done.
HARMLESS = {"close", "unlink"}
Begin = Callable[[Tuning], World]


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small():
        yield


def in_state(process: Process, wire: Tripwire) -> Tripwire:
    """Let the wire see the operations on the state folder only."""

    def around(name: str, path: str, call: Callable[[], Any]) -> Any:
        return wire(name, path, call) if path.startswith(STATE) else call()

    process.around = around
    return wire


def steps(begin: Begin) -> list[tuple[str, str]]:
    world = next(worlds(begin, TUNING))
    process = world.process()
    wire = in_state(process, Tripwire())
    world.protect(process)
    return wire.steps


def test_every_kind_of_step_is_met() -> None:
    names = {name for begin in BEGINNINGS.values() for name, _ in steps(begin)}
    wanted = {"open_write", "open_append", "append", "fdatasync", "fsync", "pwrite", "rename"}
    assert names >= wanted | {"sync_dir", "truncate", "stat", "read", "mkdir", "pread_into"}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "trouble"])
@pytest.mark.parametrize("late", [False, True], ids=["undone", "done"])
def test_the_run_ends_in_words_and_the_next_heals(begin: Begin, code: int, late: bool) -> None:
    fresh = worlds(begin, TUNING)
    for number, (name, path) in enumerate(steps(begin)):
        world = next(fresh)
        process = world.process()
        in_state(process, Tripwire(number, code, late))
        try:
            world.protect(process)
        except BackstayError as error:
            wanted = NoSpace if code == errno.ENOSPC else StateError
            assert isinstance(error, wanted), f"{name} {path}: {error!r}"
            assert error.hint
            assert error.subject.startswith(STATE)
        else:
            assert name in HARMLESS, f"{name} {path} failed and nobody noticed"
        heals(world)
