"""A month under a keeper, in memory and in virtual time; what its points would need alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.made import Made
from bench.maker import Builder, quick_ports
from bench.month import DAY, Month, SetClock, Write, content, write
from stages.keeper.keeper import Keeper, Rules
from stages.keeper.live import Holders, live_frames, places_of
from stages.keeper.retain import Retention
from stages.model import BLOCK, U64
from stages.nbd.device import FileRange
from stages.recover.device import PointDevice
from stages.recover.opened import Group, open_vault
from stages.recover.pointmap import PointMap
from stages.store.memory import MemoryStore
from stages.vault.keyfile import PrivateKey, decode_private
from stages.vault.terms import INDEX

START = 1_700_006_400_000_000  # µs; a midnight
SIZE = 64  # blocks that a commit writes, or somewhat more
NOISE = 1024
_HOUR_US, _DAY_US = 3_600_000_000, 86_400_000_000
_COMPARED = 5
EVERY = 6 * 3600.0  # seconds between two runs of the keeper
_CAPACITY = 16 << 30


@dataclass
class Ended:
    """Bytes ``held`` by the vault, ``most`` before any run, ``shipped`` in all, ``moved`` by the
    keeper; ``needed`` by the points of the policy, and by those that are ``offered``, in vaults of
    their own; ``reached``: frames that any offered point needs a block of; ``blocks``: of those the
    blocks that are needed, each its share of its frame. ``wrong``: points that read otherwise."""

    held: int = 0
    most: int = 0
    shipped: int = 0
    moved: int = 0
    needed: int = 0
    offered: int = 0
    reached: int = 0
    blocks: int = 0
    policy_points: int = 0
    offered_points: int = 0
    compared: int = 0
    problems: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def live_a_month(
    folder: Path, disk_bytes: int, commits: int, extents: tuple[int, ...], days: int = 30
) -> Ended:
    """The month, and the keeper's runs in it."""
    clock, ended = SetClock(START), Ended()
    store = MemoryStore(clock=clock, max_bytes=_CAPACITY)
    (folder / "month").mkdir()
    builder, made = await Builder.begin(folder / "month", disk_bytes, clock, store)
    key = key_of(made)
    month = Month(builder, clock, SIZE, extents, NOISE)
    await month.base()
    times = [clock.wall] * len(month.written)

    async def keep() -> None:
        ended.most = max(ended.most, await held_by(store))
        vault = await open_vault(store, key, uses=(INDEX,))
        keeper = Keeper(vault, quick_ports(clock), key.signer, Rules(lambda _: Retention()))
        report = await keeper.run()
        ended.problems += report.problems
        ended.problems += [each for group in report.groups for each in group.problems]
        ended.moved += sum(group.moved for group in report.groups)

    await month.run(commits, days * DAY, keep, EVERY)
    times += [START + round(at * days * _DAY_US / commits) for at in range(1, commits + 1)]
    ended.held, ended.shipped = await held_by(store), builder.session.shipped
    group = await _open(store, key, made.group)
    offered = [seq for seq in range(1, group.tail + 1) if group.log.offers(seq)]
    policy = wanted(times, clock.wall)
    for name, seqs in (("offered", offered), ("policy", policy)):
        (folder / name).mkdir()
        size = await alone(folder / name, disk_bytes, month.written, seqs)
        setattr(ended, "offered" if name == "offered" else "needed", size)
    ended.offered_points, ended.policy_points = len(offered), len(policy)
    ended.reached = await reached(group, offered)
    ended.blocks = shares_of(month, offered, disk_bytes // BLOCK)
    step = max(1, (len(offered) - 1) // (_COMPARED - 1))
    some = sorted({*offered[::step], offered[-1]})
    ended.compared = len(some)
    ended.wrong += [
        f"point {seq} reads otherwise"
        for seq, numbers in states(month.written, some, disk_bytes // BLOCK)
        if not await reads(group, seq, numbers)
    ]
    builder.session.ledger.close()
    return ended


def wanted(times: Sequence[int], now: int) -> list[int]:
    """Commits that the default policy keeps, by their times (µs), those of one hour or day the
    newest: worked out apart from the keeper."""
    kept = {seq for seq, time in enumerate(times, 1) if now - time <= _DAY_US}
    for bucket, period in ((_HOUR_US, 7 * _DAY_US), (_DAY_US, 30 * _DAY_US)):
        newest = {time // bucket: (seq, time) for seq, time in enumerate(times, 1)}
        kept |= {seq for seq, time in newest.values() if now - time <= period}
    return sorted(kept)


def states(written: Sequence[Write], seqs: Sequence[int], blocks: int) -> list[tuple[int, U64]]:
    """What the whole disk holds at some commits, ascending."""
    numbers = np.zeros(blocks, np.uint64)
    found, chosen = [], set(seqs)
    for seq, each in enumerate(written[: max(seqs)], 1):
        numbers[each.blocks.astype(np.int64)] = each.numbers
        if seq in chosen:
            found.append((seq, numbers.copy()))
    return found


def shares_of(month: Month, seqs: Sequence[int], blocks: int) -> int:
    """Bytes of the blocks that a disk of so many ``blocks`` holds at any of these commits, each its
    share of its frame."""
    shares = np.concatenate(month.shares)
    held = np.zeros(len(shares) + 1, np.bool_)  # by number; they begin at 1
    for _, numbers in states(month.written, seqs, blocks):
        held[numbers.astype(np.int64)] = True
    return round(float(shares[held[1:]].sum()))


async def alone(
    folder: Path, disk_bytes: int, written: Sequence[Write], seqs: Sequence[int]
) -> int:
    """Bytes of a fresh vault that has these points and no others."""
    clock = SetClock(START)
    store = MemoryStore(clock=clock, max_bytes=_CAPACITY)
    builder, _ = await Builder.begin(folder, disk_bytes, clock, store)
    numbers, chosen = np.zeros(disk_bytes // BLOCK, np.uint64), set(seqs)
    before = numbers.copy()
    for seq, each in enumerate(written[: seqs[-1]], 1):
        numbers[each.blocks.astype(np.int64)] = each.numbers
        if seq in chosen:
            changed = np.flatnonzero(numbers != before).astype(np.uint64)
            before[:] = numbers
            await write(builder, changed, numbers[changed.astype(np.int64)], NOISE)
            await builder.checkpoint(when_due=True)
    builder.session.ledger.close()
    return await held_by(store)


async def reached(group: Group, seqs: Sequence[int]) -> int:
    """Bytes of all frames of which a point needs any block."""
    files, found = quick_ports().files, Holders()
    frames = (await live_frames(group, files, list(seqs))).numbers()
    point = await PointMap.build(group, files, group.tail)
    try:
        await places_of(point, frames, found.add)
    finally:
        point.close()
    return sum(sum(each.values()) for each in (found.data, found.tails, found.packs))


async def held_by(store: MemoryStore) -> int:
    """Bytes of all objects."""
    found = await store.page("", "", 10_000_000)
    return sum(info.size for info in found)


async def reads(group: Group, seq: int, numbers: U64) -> bool:
    """Whether a point, read whole, holds what it should."""
    ports = quick_ports()
    point = await PointMap.build(group, ports.files, seq)
    try:
        (disk,) = point.machine.disks
        device = PointDevice(point, disk, ports.offload)
        for first in range(0, len(numbers), 1024):
            some = numbers[first : first + 1024]
            parts = await device.read(first * BLOCK, len(some) * BLOCK)
            found = b"".join(
                bytes(part.length) if isinstance(part, FileRange) else part for part in parts
            )
            if found != content(some, NOISE).tobytes():
                return False
    finally:
        point.close()
    return True


def key_of(made: Made) -> PrivateKey:
    """The operator's key."""
    return decode_private(Path(made.key).read_bytes(), None, made.key)


async def _open(store: MemoryStore, key: PrivateKey, group: str) -> Group:
    return await (await open_vault(store, key)).group(bytes.fromhex(group))
