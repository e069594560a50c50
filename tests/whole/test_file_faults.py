"""The Nth operation on the state folder fails, for every N: it is told, and the next run heals."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stages.errors import NoSpace, StateError
from tests.ports.watched import Tripwire
from tests.whole.scenario import BEGINNINGS, TUNING, heals, small, worlds
from tests.whole.world import STATE, Crash, PowerCut, Process, Tuning, World

# Nothing depends on these any more when they are done.
HARMLESS = {"close"}
WRITES = {"open_write", "open_append", "append", "pwrite", "truncate", "mkdir", "rename"}
SYNCS = {"fsync", "fdatasync", "sync_dir"}
READS = {"stat", "fstat", "listdir", "read", "pread", "pread_into", "lock", "unlink"}
EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))
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


def chosen(begin: Begin, names: set[str]) -> Iterator[tuple[int, str, str]]:
    """Steps of these names, by number; of equal ones in a row the last."""
    found = steps(begin)
    following = [*found[1:], ("", "")]
    for number, (step, other) in enumerate(zip(found, following, strict=True)):
        if step[0] in names and step != other:
            yield number, *step


def test_every_kind_of_step_is_met() -> None:
    names = {name for begin in BEGINNINGS.values() for name, _ in steps(begin)}
    wanted = {"open_write", "open_append", "append", "fdatasync", "fsync", "pwrite", "rename"}
    assert names >= wanted | {"sync_dir", "truncate", "stat", "read", "mkdir", "pread_into"}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_full_disk_is_told_and_the_next_run_heals(begin: Begin) -> None:
    fresh = worlds(begin, TUNING)
    for number, name, path in chosen(begin, WRITES | SYNCS):
        world = next(fresh)
        process = world.process()
        in_state(process, Tripwire(number, errno.ENOSPC))
        with pytest.raises(NoSpace) as raised:
            world.protect(process)
        assert raised.value.hint, (name, path)
        assert raised.value.subject.startswith(STATE)
        assert not world.left_open, (name, path)
        heals(world, number)


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_step_that_fails_when_it_is_done(begin: Begin) -> None:
    fresh = worlds(begin, TUNING)
    for number, name, path in chosen(begin, READS | WRITES | SYNCS | HARMLESS):
        world = next(fresh)
        process = world.process()
        in_state(process, Tripwire(number, errno.EIO, late=True))
        try:
            world.protect(process)
        except StateError as error:
            assert error.hint, (name, path)
            assert error.subject.startswith(STATE)
        else:
            assert name in HARMLESS, f"{name} {path} failed and nobody noticed"
        assert len(world.left_open) <= name.startswith("open"), (name, path)
        heals(world, number)


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_power_fails_at_every_step(begin: Begin) -> None:
    fresh = worlds(begin, TUNING)
    for number, *_ in chosen(begin, WRITES | SYNCS):
        for seed in range(number, number + EXPLORE):
            world = next(fresh)
            process = world.process()
            in_state(process, PowerCut(process, number, after=seed % 2 == 0))
            with pytest.raises(Crash):
                world.protect(process)
            world.files.power_cut(seed)
            heals(world, number)
