"""A month of a machine's writes, in virtual time: a vault as its daemon would have left it.

Most writes go to a tenth of the disk. Time is set, not waited for: objects bear it as their age, so
retention finds a month. Checkpoints are made when they are due, a new term begins each day.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import trio

from bench.made import Made
from bench.maker import Builder, batch_of, quick_ports
from stages.model import BLOCK, U8, U32, U64, empty_pairs
from stages.ports import Buffer, Machine
from stages.store.file import FileStore
from stages.store.port import Put
from stages.system import SystemClock

DAY = 86_400
INLINE = 256 << 10  # bytes, as the default configuration has it
_SEED = 20240131
_HOT, _HOT_SHARE = 0.1, 0.8  # of the disk; of the writes
_MICRO = 1_000_000


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self, wall: int):
        self.wall = wall

    def monotonic(self) -> float:
        """Seconds."""
        return self.wall / _MICRO

    def wall_us(self) -> int:
        """µs since 1970."""
        return self.wall

    async def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.wall += round(seconds * _MICRO)
        await trio.lowlevel.checkpoint()


class DatedStore(FileStore):
    """Objects in a folder, their age by a clock that is set."""

    def __init__(self, root: str, machine: Machine):
        super().__init__(root, machine)
        self._folder = root
        self._clock = machine.clock

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create, and set the time."""
        done = await super().put(key, parts)
        stamp = self._clock.wall_us() * 1000
        os.utime(f"{self._folder}/{key}", ns=(stamp, stamp))
        return done


@dataclass(frozen=True, slots=True)
class Write:
    """One commit's blocks (n,), ascending, and the numbers that they hold from then on."""

    blocks: U64
    numbers: U64


@dataclass
class Month:
    """Commits of about ``size`` blocks each, in extents of any of the lengths ``extents``, each
    aligned to its own length; ``noise`` bytes of a block do not compress.

    ``written`` is what each commit wrote, from the first on; ``shares`` (n,) what the block of each
    number takes of its frame, in bytes as stored.
    """

    builder: Builder
    clock: SetClock
    size: int
    extents: tuple[int, ...]
    noise: int
    written: list[Write] = field(default_factory=list)
    shares: list[npt.NDArray[np.float64]] = field(default_factory=list)
    _serial: int = 1

    async def base(self) -> None:
        """Write the whole disk once, then a checkpoint."""
        disk = self.builder.disk.blocks
        for first in range(0, disk, 4096):
            blocks = np.arange(first, min(disk, first + 4096), dtype=np.uint64)
            await self._commit(blocks, in_gap=first + 4096 < disk)
        await self.builder.checkpoint()

    async def run(
        self,
        commits: int,
        seconds: float,
        keep: Callable[[], Awaitable[None]] | None = None,
        every: float = DAY,
    ) -> None:
        """All commits; ``keep`` is called whenever ``every`` seconds of virtual time are over."""
        dice = np.random.default_rng(_SEED)
        begun, day, turn = self.clock.wall, 0, 0
        for at in range(1, commits + 1):
            self.clock.wall = begun + round(at * seconds / commits * _MICRO)
            await self._commit(self._some(dice), in_gap=False)
            await self.builder.checkpoint(when_due=True)
            if int(at * seconds / commits) // DAY > day:
                day = int(at * seconds / commits) // DAY
                await self.builder.new_term()
            if keep is not None and int(at * seconds / commits / every) > turn:
                turn = int(at * seconds / commits / every)
                await keep()

    def _some(self, dice: np.random.Generator) -> U64:
        disk, left, found = self.builder.disk.blocks, self.size, []
        while left > 0:
            length = int(dice.choice(self.extents))
            among = max(length, int(disk * _HOT)) if dice.random() < _HOT_SHARE else disk
            start = int(dice.integers(among // length)) * length
            found.append(np.arange(start, start + length, dtype=np.uint64))
            left -= length
        return np.unique(np.concatenate(found))

    async def _commit(self, blocks: U64, *, in_gap: bool) -> None:
        numbers = np.arange(self._serial, self._serial + len(blocks), dtype=np.uint64)
        self._serial += len(blocks)
        spans = await write(self.builder, blocks, numbers, self.noise, in_gap=in_gap)
        self.written.append(Write(blocks, numbers))
        self.shares.append(np.repeat(spans[:, 1] / spans[:, 2], spans[:, 2]))


async def write(
    builder: Builder, blocks: U64, numbers: U64, noise: int, *, in_gap: bool = False
) -> U32:
    """One settled commit, as the shipper makes it; the spans (n, 3) of its frames."""
    batch = batch_of(blocks, numbers, empty_pairs())
    first = builder.next_frame
    stored = await builder.put(first, batch, content(numbers, noise), in_gap=in_gap, inline=INLINE)
    await builder.commit([stored], settle=True)
    return stored.spans


def content(numbers: U64, noise: int) -> U8:
    """Blocks (n, BLOCK) that begin with ``noise`` bytes of noise made from their numbers."""
    found = np.zeros((len(numbers), BLOCK // 8), np.uint64)
    words = np.arange(1, noise // 8 + 1, dtype=np.uint64)
    mixed = numbers[:, None] * np.uint64(0x9E3779B97F4A7C15) + words * np.uint64(0xD1342543DE82EF95)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    found[:, : noise // 8] = mixed
    return found.view(np.uint8)


async def make_log(folder: Path, disk_bytes: int, commits: int, seconds: float) -> Made:
    """A vault in a folder, of ``commits`` small ones over ``seconds``, the last made now."""
    now = SystemClock().wall_us()
    clock = SetClock(now - round(seconds * _MICRO))
    store = DatedStore(str(folder / "vault"), quick_ports(clock))
    await store.create_root()
    builder, made = await Builder.begin(folder, disk_bytes, clock, store)
    month = Month(builder, clock, 8, (1,), 512)
    await month.base()
    await month.run(commits - builder.tail.seq, seconds)
    builder.session.ledger.close()
    return replace(made, tail=builder.tail.seq)


def redate(made: Made, seconds: float) -> None:
    """Let the log of a vault in a folder have been written over other ``seconds``, up to now."""
    now = SystemClock().wall_us()
    log = Path(made.vault, "groups", made.group, "log")
    for path in log.iterdir():
        age = seconds * (made.tail - int(path.name)) / made.tail
        stamp = (now - round(age * _MICRO)) * 1000
        os.utime(path, ns=(stamp, stamp))
