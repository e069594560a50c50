"""Reading a vault as a bare machine would: a store and the private key, nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from stages.model import BLOCK
from stages.ports import Machine
from stages.recover.extract import each
from stages.recover.opened import Group, open_vault
from stages.recover.plan import FrameNeed
from stages.recover.pointmap import PointMap
from stages.recover.sweep import Sweep, content_runs
from stages.recover.verify import Verify
from stages.store.port import ObjectStore
from stages.vault.keyfile import PrivateKey
from tests.ports.watched import machine
from tests.whole.memfiles import MemFiles
from tests.whole.world import NAME, World, simulate


def bare_machine() -> Machine:
    """No state, no configuration."""
    return machine(MemFiles())


async def open_group(store: ObjectStore, key: PrivateKey) -> Group:
    vault = await open_vault(store, key)
    group = await vault.find(NAME)
    assert not vault.problems
    return group


async def read_point(group: Group, seq: int, *, checkpoints: bool = True) -> dict[str, bytes]:
    """All disks of a point, by name."""
    ports = bare_machine()
    point = await PointMap.build(group, ports.files, seq, checkpoints=checkpoints)
    sweep = Sweep(point, ports)
    found = {}
    for disk in point.machine.disks:
        content = bytearray(disk.blocks * BLOCK)

        def take(need: FrameNeed, data: memoryview, content: bytearray = content) -> None:
            for slot, block, count in content_runs(need):
                piece = data[slot * BLOCK : (slot + count) * BLOCK]
                content[block * BLOCK : (block + count) * BLOCK] = piece

        for first in sweep.windows(disk):
            await sweep.extract(await sweep.locate(disk, first), each(take))
        assert not any(content[disk.size :]), "padding is zero"
        found[disk.name] = bytes(content[: disk.size])
    sweep.point.close()
    assert not sweep.damage
    assert not group.log.ignored
    return found


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> str:
    """What differs, short enough to read."""
    if one.keys() != other.keys():
        return f"disks {sorted(one)} and {sorted(other)}"
    for name in one:
        if len(one[name]) != len(other[name]):
            return f"{name}: {len(one[name])} and {len(other[name])} bytes"
        blocks = range(0, len(one[name]), BLOCK)
        bad = [
            at // BLOCK
            for at in blocks
            if one[name][at : at + BLOCK] != other[name][at : at + BLOCK]
        ]
        if bad:
            return f"{name}: {len(bad)} blocks differ, the first are {bad[:8]}"
    return ""


async def check_points(world: World, seqs: Iterable[int] | None = None) -> int:
    """Every consistent point in the log is what the disks held when it was made.

    And every point that a run reported is there. Each is read through a checkpoint or through the
    whole log, the newest both ways. Returns how many were compared. ``seqs``: only these.
    """
    if not any("/log/" in key for key in world.store._keys):
        assert not world.settled
        return 0
    group = await open_group(world.store, world.key)
    assert max(world.settled, default=0) <= group.tail
    compared = 0
    for seq in range(1, group.tail + 1) if seqs is None else seqs:
        header = (await group.log.signed(seq)).header
        attempt = world.store.begun[header.epoch]
        assert world.settled.get(seq, attempt) == attempt
        assert header.consistent or seq not in world.settled
        if not header.consistent:
            continue
        for checkpoints in (True, False) if seq == group.tail else (seq % 2 == 0,):
            found = await read_point(group, seq, checkpoints=checkpoints)
            wrong = differing(found, world.attempts[attempt])
            assert not wrong, f"point {seq}, checkpoints {checkpoints}: {wrong}"
        compared += 1
    return compared


async def check_verified(world: World) -> None:
    """``verify`` finds nothing at the newest point."""
    group = await open_group(world.store, world.key)
    found = await Verify(group, bare_machine(), group.tail).run()
    assert not found.problems, found.problems
    assert found.whole


def check(world: World, seqs: Iterable[int] | None = None) -> int:
    """``check_points`` in a run of its own."""
    return simulate(0, check_points, world, seqs)


def newest(world: World) -> dict[str, bytes]:
    """The disks of the newest consistent point."""

    async def read() -> dict[str, bytes]:
        group = await open_group(world.store, world.key)
        seq = await group.log.consistent_before(group.tail)
        return await read_point(group, seq)

    return simulate(0, read)


__all__ = ["check", "check_points", "check_verified", "newest", "open_group", "read_point", "trio"]
