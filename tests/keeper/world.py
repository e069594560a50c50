"""A machine whose every point is known byte for byte, its vault, its keeper, and a clock to set."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from stages.errors import StoreUnreachable
from stages.keeper.keeper import Keeper, Rules
from stages.keeper.report import Report
from stages.keeper.retain import Retention
from stages.model import BLOCK, Disk
from stages.ports import Machine
from stages.recover.opened import Group, open_vault
from stages.recover.points import newest
from stages.store.faults import Fault, FaultPlan, FaultStore, nth
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore
from stages.vault.branches import found_branch
from stages.vault.charter import Keeper as KeeperMember
from stages.vault.floors import Hold, hold_object
from stages.vault.keyfile import PrivateKey, generate
from stages.vault.layout import hold as hold_name
from stages.vault.records import Parent
from stages.vault.terms import INDEX
from tests.vault.author import Author, batch_of
from tests.vault.reading import read_point
from tests.vault.support import (
    SECOND,
    People,
    SeededEntropy,
    SetClock,
    noise_block,
    put_charter,
    seeded_machine,
    text_block,
)

HOUR = 3600 * SECOND
DISKS = (Disk(0, "root", 90 * BLOCK), Disk(1, "data", 40 * BLOCK))
RETENTION = Retention(all=6 * 3600, hourly=24 * 3600, daily=5 * 86_400)
GRACE = 3600.0


@dataclass
class World:
    """``points``: what each disk holds at each commit, by name."""

    machine: Machine
    store: Any  # a MemoryStore; DatedFiles after ``in_files``
    people: People
    keeper: PrivateKey
    folder: str
    author: Author
    points: dict[int, dict[str, bytes]] = field(default_factory=dict)
    disks: dict[int, bytearray] = field(default_factory=dict)
    lives: int = 1
    _looked_at: frozenset[str] = frozenset()
    _offered: list[int] = field(default_factory=list)
    _right: set[int] = field(default_factory=set)

    @property
    def clock(self) -> SetClock:
        clock = self.machine.clock
        assert isinstance(clock, SetClock)
        return clock

    def wait(self, hours: float) -> None:
        self.clock.wall += round(hours * HOUR)

    async def write(self, rng: random.Random, *, consistent: bool = True) -> int:
        """A commit of random writes: content of both kinds, zeros, references."""
        segments = tuple(self._segment(rng) for _ in range(rng.choice((1, 1, 2))))
        header = await self.author.commit(*segments, in_gap=not consistent, grade="crash")
        self.points[header.seq] = {
            disk.name: bytes(self.disks[disk.number][: disk.size]) for disk in DISKS
        }
        return header.seq

    def _segment(self, rng: random.Random):  # type: ignore[no-untyped-def]
        batches, copies = [], []
        for disk in DISKS:
            free = list(range(disk.blocks))
            rng.shuffle(free)
            make = rng.choice((noise_block, text_block))
            content = {
                block: make(f"{self.clock.wall} {block} {rng.random()}")
                for block in (free.pop() for _ in range(rng.choice((0, 1, 3, 12))))
            }
            zero = tuple((free.pop(), 1) for _ in range(rng.choice((0, 0, 2))))
            refs = []
            for _ in range(rng.choice((0, 0, 2))):
                other = rng.choice(DISKS)
                refs.append((free.pop(), other.number, rng.randrange(other.blocks)))
            batches.append(batch_of(disk.number, content, zero=zero, refs=tuple(refs)))
            for block, data in content.items():
                self._put(disk.number, block, data)
            for block, _ in zero:
                self._put(disk.number, block, bytes(BLOCK))
            copies += [(disk.number, block, other, target) for block, other, target in refs]
        read = [(d, b, bytes(self.disks[o][t * BLOCK :][:BLOCK])) for d, b, o, t in copies]
        for disk_number, block, data in read:
            self._put(disk_number, block, data)
        return tuple(batches)

    def _put(self, disk: int, block: int, data: bytes) -> None:
        self.disks[disk][block * BLOCK : (block + 1) * BLOCK] = data

    async def restart(self) -> None:
        """The writer ends and begins a new term from its durable state."""
        self.author.end()
        self.lives += 1
        self.author = Author(self.people, self.store, self.folder, self.machine)
        await self.author.begin()

    async def hold(self, seq: int) -> None:
        group = await self.open()
        link = (await group.log.signed(seq)).link
        hold = Hold(seq, link, self.clock.wall, "a test")
        parts = hold_object(self.scope, hold, self.people.operator.signer)
        await self.store.put(hold_name(self.scope.group, seq), parts)

    async def release(self, seq: int) -> None:
        await self.store.delete(hold_name(self.scope.group, seq))

    async def branch(self, seq: int) -> Parent:
        """A group that begins at ``seq``."""
        link = (await (await self.open()).log.signed(seq)).link
        parent = Parent(self.scope.group, seq, link)
        scope = self.people.scope(self.machine.entropy.token(16))
        people = self.people
        await found_branch(
            self.store,
            scope,
            people.charter,
            people.operator.signer,
            self.machine.entropy,
            parent,
            bytes(32),
            self.clock.wall,
        )
        return parent

    @property
    def scope(self):  # type: ignore[no-untyped-def]
        return self.people.scope()

    async def open(self, store: ObjectStore | None = None) -> Group:
        """As somebody with the operator's key opens it now."""
        vault = await open_vault(store or self.store, self.people.operator)
        return await vault.group(self.scope.group)

    async def keep(
        self,
        store: ObjectStore | None = None,
        *,
        retention: Retention | None = RETENTION,
        dry_run: bool = False,
        signer: PrivateKey | None = None,
        rules: Rules | None = None,
    ) -> Report:
        """One run of the keeper with its own key."""
        key = signer or self.keeper
        vault = await open_vault(
            store or self.store, key, (self.people.charter.pin(),), uses=(INDEX,)
        )
        # Whatever can be moved is: these vaults are too small for it to be worth the while.
        rules = rules or Rules(lambda _name: retention, grace=GRACE, waste=0.0)
        return await Keeper(vault, self.machine, key.signer, rules).run(dry_run=dry_run)

    async def keep_killed(self, at: int, *, name: str = "") -> bool:
        """A run that ends at store operation ``at``, of all or of those called ``name``; False if
        it was over before."""
        rule = nth(at, Fault(before=StoreUnreachable), name=name)
        store = FaultStore(self.store, FaultPlan(rule), self.clock)
        try:
            await self.keep(store)
        except StoreUnreachable:
            return True
        return False

    async def offered(self) -> list[int]:
        """The consistent points that a reader is shown, oldest first."""
        group = await self.open()
        found = await newest(group, 10_000)
        assert not group.log.ignored, group.log.ignored
        return [point.seq for point in reversed(found)]

    async def check(self, *more: int) -> list[int]:
        """Every point that is offered, and ``more``, reads byte for byte; returns what is."""
        keys = frozenset(each for each in self.store._keys if not each.startswith("keeper/"))
        if keys != self._looked_at:  # objects never change: of the same ones the same is read
            self._looked_at, self._offered, self._right = keys, await self.offered(), set()
        group = None
        for seq in {*self._offered, *more} - self._right:
            group = group or await self.open()
            disks, damage = await read_point(group, seq)
            assert not damage, (seq, damage)
            assert disks == self.points[seq], seq
            self._right.add(seq)
        return list(self._offered)


async def make_world(stack: ExitStack, seed: str = "keeper") -> World:
    """A vault with an admitted keeper and the first commit of a machine."""
    machine = replace(seeded_machine(seed), clock=SetClock())
    store = MemoryStore(clock=machine.clock)
    people = People.of(seed)
    keeper = generate("keeper", SeededEntropy(f"the keeper of {seed}"))
    member = KeeperMember(keeper.box.public, keeper.signer.public, "keeper")
    await put_charter(store, people.charter, people.operator.signer)
    charter = people.charter.with_keeper(member)
    await put_charter(store, charter, people.operator.signer)
    people = replace(people, charter=charter)
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    author = Author(people, store, folder, machine)
    await author.begin()
    await author.describe(1, *DISKS)
    disks = {disk.number: bytearray(disk.blocks * BLOCK) for disk in DISKS}
    world = World(machine, store, people, keeper, folder, author, disks=disks)
    stack.callback(lambda: world.author.ledger.close())  # noqa: PLW0108 - a later author
    return world
