"""Two daemons with copies of one state: whatever the interleaving, one valid log, one writer."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import trio

from pipeline.protect import protect_once
from pipeline.state import StateFolder
from stages.errors import BackstayError, Fenced, StoreUnreachable
from stages.model import BLOCK
from stages.ports import Buffer, Machine
from stages.store.faults import (
    LOST_ANSWER,
    LOST_REQUEST,
    Fault,
    FaultPlan,
    FaultStore,
    Operation,
    nth,
)
from stages.store.port import Put
from tests.whole.reading import differing, open_group, read_point
from tests.whole.small import eager_checkpoints, small_pages, small_rollups
from tests.whole.world import NAME, Crash, Tuning, World, simulate

EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))
TUNING = Tuning(seal_bytes=16 << 10, inline=8 << 10, in_flight=2, retried=False)


class OwnedStore(FaultStore):
    """One daemon's way to the vault; remembers which commits it wanted, blips now and then."""

    def __init__(self, daemon: Daemon, world: World, seed: int, blips: float):
        dice = random.Random(seed)

        def blip(_operation: Operation) -> Fault | None:
            return dice.choice([LOST_REQUEST, LOST_ANSWER]) if dice.random() < blips else None

        super().__init__(world.store, FaultPlan(blip), world.clock)
        self._daemon = daemon

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        if "/log/" in key:
            self._daemon.wanted[b"".join(parts)] = self._daemon.held
        return await super().put(key, parts)


@dataclass
class Daemon:
    """One of the two: its state folder, its disks, how its runs ended."""

    state: str
    disks: str
    held: bytes = b""  # on its disk
    wanted: dict[bytes, bytes] = field(default_factory=dict)  # commits, and what they are of
    ends: list[str] = field(default_factory=list)


class Duel:
    """A world in which the state folder was copied after the first run."""

    def __init__(self, seed: int):
        self.seed = seed
        self.dice = random.Random(seed)
        self.world = World(seed, TUNING)
        self.world.disks["a"] = bytearray(self.dice.randbytes(30 * BLOCK))
        if seed % 3:
            self.world.protect()
        else:  # the group has begun, its log has not
            with pytest.raises(Crash):
                self.world.protect(self.world.process(nth(seed % 4 + 4, Fault(before=Crash))))
        self.world.files.copy_tree("/state", "/copy")
        self.world.files.mkdir("/other")
        self.daemons = [Daemon("/state", "/disks"), Daemon("/copy", "/other")]
        self.first = bytes(self.world.disks["a"])

    def round(self, number: int, fighters: Sequence[Daemon]) -> None:
        """All of them protect other content at the same time."""
        for daemon in fighters:
            content = self.dice.randbytes(24 * BLOCK) + bytes(6 * BLOCK)
            daemon.held = content
            self.world.files.put(f"{daemon.disks}/a", content)
        simulate(self.seed * 100 + number, self._round, fighters)
        self.world.files.process_died()

    async def _round(self, fighters: Sequence[Daemon]) -> None:
        stores: dict[int, OwnedStore] = {}
        with self.world.stores(lambda machine: stores[id(machine)]):
            async with trio.open_nursery() as nursery:
                for daemon in fighters:
                    machine = self.world.process().machine
                    seed = self.dice.randrange(1 << 30)
                    blips = 0.02 if len(fighters) > 1 else 0.0
                    stores[id(machine)] = OwnedStore(daemon, self.world, seed, blips)
                    nursery.start_soon(self._protect, daemon, machine)

    async def _protect(self, daemon: Daemon, machine: Machine) -> None:
        folder = StateFolder.open(machine, daemon.state)
        config = self.world.config(daemon.state, daemon.disks)
        try:
            await protect_once(machine, config, NAME, folder)
            daemon.ends.append("ok")
        except BackstayError as error:
            assert isinstance(error, Fenced | StoreUnreachable), repr(error)
            daemon.ends.append(type(error).__name__)
        finally:
            folder.close()

    async def check(self) -> Daemon | None:
        """One chain of rising epochs; a point is what its author held. Returns the last author."""
        if not [info for info in await self.world.store.page("") if "/log/" in info.key]:
            return None
        group = await open_group(self.world.store, self.world.key)
        commits = []
        for first in range(1, group.tail + 1, 4):
            commits += await group.log.stretch(first, min(group.tail, first + 3), None)
        epochs = [commit.header.epoch for commit in commits]
        assert epochs == sorted(epochs)
        owner = None
        for commit in commits:
            whole = await self.world.store.get(commit.container.key)
            owner = next((daemon for daemon in self.daemons if whole in daemon.wanted), None)
            if commit.header.consistent and commit.header.seq % 3 == group.tail % 3:
                found = await read_point(group, commit.header.seq)
                wrong = differing(found, {"a": owner.wanted[whole] if owner else self.first})
                assert not wrong, f"seed {self.seed}, commit {commit.header.seq}: {wrong}"
        return owner


@pytest.mark.parametrize("seed", range(24 * EXPLORE))
def test_one_of_two_writers_wins_for_good(seed: int) -> None:
    with small_pages(), small_rollups(), eager_checkpoints():
        duel = Duel(seed)
        for number in range(4):
            duel.round(number, duel.daemons)
            simulate(0, duel.check)
        ends = [daemon.ends for daemon in duel.daemons]
        # Alone, one of them goes on by itself, and the other is told to stop.
        for number in range(4, 8):
            duel.round(number, [duel.daemons[number % 2]])
        owner = simulate(0, duel.check)
        assert owner is not None
        loser = duel.daemons[1 - duel.daemons.index(owner)]
        assert owner.ends[-2:] == ["ok", "ok"], ends
        assert loser.ends[-2:] == ["Fenced", "Fenced"], ends


def test_they_meet_in_many_ways() -> None:
    """The duels above are no formality: both sides win some, and both lose some."""
    ends: set[tuple[str, str]] = set()
    with small_pages(), small_rollups():
        for seed in range(12):
            duel = Duel(seed)
            duel.round(0, duel.daemons)
            ends.add((duel.daemons[0].ends[0], duel.daemons[1].ends[0]))
    assert ("Fenced", "Fenced") in ends
    assert {"ok"} & {end for pair in ends for end in pair}
