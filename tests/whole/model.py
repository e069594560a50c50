"""What can happen to a deployment, as a list of events, and a player that carries them out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from stages.errors import StoreUnreachable
from stages.model import BLOCK
from stages.store.faults import Fault, nth
from tests.whole.reading import check, check_verified, differing, newest
from tests.whole.small import eager_checkpoints, small_pages, small_rollups
from tests.whole.world import Crash, PowerCut, Process, Tuning, World, simulate

LETTERS = 6  # different contents that are written again and again, so that references arise


@dataclass(frozen=True)
class Write:
    """Some blocks of a disk change. ``disk`` picks one, modulo their number; so does ``start``."""

    disk: int
    start: int
    count: int
    what: str
    seed: int


@dataclass(frozen=True)
class Revert:
    """A disk goes back to what it held at an earlier attempt."""

    disk: int
    attempt: int


@dataclass(frozen=True)
class Resize:
    """A disk is made larger or smaller."""

    disk: int
    size: int


@dataclass(frozen=True)
class Add:
    """One more disk."""

    size: int
    sparse: bool


@dataclass(frozen=True)
class Remove:
    """A disk is not protected any more."""

    disk: int


@dataclass(frozen=True)
class Protect:
    """A run that succeeds."""


@dataclass(frozen=True)
class Killed:
    """A run that dies at a store operation, before or after its effect; then perhaps power fails.

    ``late``: a put on its way at that moment takes effect so many operations into the next run.
    """

    at: int
    after: bool
    power: bool
    seed: int
    late: int | None = None


@dataclass(frozen=True)
class PowerFails:
    """A run that ends with the power at a file operation, before or after its effect."""

    at: int
    after: bool
    seed: int


Event: TypeAlias = Write | Revert | Resize | Add | Remove | Protect | Killed | PowerFails
KINDS = ("random", "zero", "letters", "copy", "touch")


@dataclass(frozen=True)
class Story:
    """A world's settings, and what happens in it."""

    events: tuple[Event, ...]
    seed: int = 0
    tuning: Tuning = field(default_factory=Tuning)
    pages: bool = True
    rollups: bool = True
    checkpoints: bool = True


class Player:
    """Plays a story in a world and holds the vault against it."""

    def __init__(self, story: Story):
        self.story = story
        self.world = World(story.seed, story.tuning)
        self._made = 0

    def play(self) -> World:
        with small(self.story):
            for event in self.story.events:
                self.do(event)
            self._protect()
            self._check_all()
        return self.world

    def do(self, event: Event) -> None:
        match event:
            case Write():
                self._write(event)
            case Revert(disk=disk, attempt=attempt):
                self._revert(disk, attempt)
            case Resize(disk=disk, size=size):
                self._resize(disk, size)
            case Add(size=size, sparse=sparse):
                self._add(size, sparse)
            case Remove(disk=disk):
                if len(self.world.disks) > 1:
                    del self.world.disks[self._name(disk)]
            case Protect():
                self._protect()
            case Killed():
                self._killed(event)
            case PowerFails():
                self._power_fails(event)

    def _protect(self) -> None:
        if not self.world.disks:
            return
        try:
            outcome = self.world.protect()
        except StoreUnreachable as error:
            assert "arrived late" in error.message
            outcome = self.world.protect()
        wrong = differing(newest(self.world), self.world.attempts[-1])
        assert not wrong, f"newest point {outcome.seq}: {wrong}"

    def _killed(self, event: Killed) -> None:
        if not self.world.disks:
            return
        fault = Fault(after=Crash) if event.after else Fault(before=Crash)
        if event.late is not None:
            fault = Fault(late=1e9)
        process = self.world.process(nth(event.at, fault, name="put" if fault.late else ""))
        self._fall(process)
        if event.late is not None:
            self.world.store.abandoned += process.opened
            self.world.store.arrive_in = event.late
        if event.power:
            self.world.files.power_cut(event.seed)

    def _power_fails(self, event: PowerFails) -> None:
        if self.world.disks:
            process = self.world.process()
            process.around = PowerCut(process, event.at, after=event.after)
            self._fall(process)
            self.world.files.power_cut(event.seed)

    def _fall(self, process: Process) -> None:
        """A run that may die, or stumble over a commit of a dead one, or be through before."""
        try:
            self.world.protect(process)
        except Crash:
            pass
        except StoreUnreachable as error:
            assert "arrived late" in error.message

    def _check_all(self) -> None:
        if self.world.attempts:
            check(self.world)
            simulate(0, check_verified, self.world)

    def _write(self, event: Write) -> None:
        if not self.world.disks:
            return
        data = self.world.disks[self._name(event.disk)]
        blocks = -(-len(data) // BLOCK)
        if not blocks:
            return
        start = event.start % blocks
        end = min(len(data), (start + event.count) * BLOCK)
        content = self._content(event, start * BLOCK, end)
        data[start * BLOCK : end] = content[: end - start * BLOCK]

    def _content(self, event: Write, start: int, end: int) -> bytes:
        dice = random.Random(event.seed)
        length = end - start
        match event.what:
            case "zero":
                return bytes(length)
            case "letters":
                letters = [random.Random(at).randbytes(BLOCK) for at in range(LETTERS)]
                return b"".join(dice.choice(letters) for _ in range(-(-length // BLOCK)))
            case "copy":
                names = list(self.world.disks)
                other = self.world.disks[dice.choice(names)]
                at = dice.randrange(max(1, len(other) // BLOCK)) * BLOCK
                return bytes(other[at : at + length]).ljust(length, b"\0")
            case "touch":
                found = bytearray(self.world.disks[self._name(event.disk)][start:end])
                found[dice.randrange(length)] ^= 1 + dice.randrange(255)
                return bytes(found)
        return dice.randbytes(length)

    def _revert(self, disk: int, attempt: int) -> None:
        attempts = self.world.attempts
        if not attempts or not self.world.disks:
            return
        name = self._name(disk)
        earlier = attempts[attempt % len(attempts)].get(name)
        if earlier is not None:
            size = len(self.world.disks[name])
            self.world.disks[name] = bytearray(earlier[:size].ljust(size, b"\0"))

    def _resize(self, disk: int, size: int) -> None:
        if self.world.disks:
            data = self.world.disks[self._name(disk)]
            del data[size:]
            data.extend(bytes(size - len(data)))

    def _add(self, size: int, sparse: bool) -> None:
        if len(self.world.disks) < 4:
            name = f"d{self._made}"
            self._made += 1
            self.world.disks[name] = bytearray(size)
            if sparse:
                self.world.sparse.add(name)

    def _name(self, disk: int) -> str:
        return list(self.world.disks)[disk % len(self.world.disks)]


@contextmanager
def small(story: Story) -> Iterator[None]:
    """The sizes that a story is played with."""
    with ExitStack() as stack:
        if story.pages:
            stack.enter_context(small_pages())
        if story.rollups:
            stack.enter_context(small_rollups())
        if story.checkpoints:
            stack.enter_context(eager_checkpoints())
        yield
