"""Writes the golden vault that a keeper has worked on: ``python -m tests.keeper.build_golden``.

Run it only when the format is changed on purpose, like that of the other golden vaults.
"""

from __future__ import annotations

from contextlib import ExitStack

import trio
from blake3 import blake3

from stages.model import BLOCK
from tests.keeper.world import DISKS, World, make_world
from tests.vault import build_golden
from tests.vault.author import batch_of
from tests.vault.build_golden import Golden
from tests.vault.support import noise_block, text_block

NAME = "kept"
SEED = "golden keeper"
HELD = 2


def words(first: int, count: int, word: str) -> dict[int, bytes]:
    """Blocks that compress."""
    return {at: text_block(f"{word} {at}") for at in range(first, first + count)}


async def build() -> Golden:
    """Days of commits, a held point among them; floors, packs, and much that has gone."""
    with ExitStack() as stack:
        world = await make_world(stack, SEED)
        for day in range(7):
            noise = {at: noise_block(f"{day} {at}") for at in range(3)}
            again = words(3, 61, f"day {day}")  # with these a frame that is soon needed no more
            root = noise | again | words(66 + day, 1, "of one day")
            await _commit(world, root, words(day, 2, "data"))
            if day in (0, 3, 5):
                await world.author.checkpoint()
            world.wait(24)
        await world.hold(HELD)
        for _ in range(4):
            report = await world.keep()
            assert report.clean, report
            world.wait(24)
        await _commit(world, words(80, 4, "after"), {})
        offered = await world.check(HELD)
        points = {
            seq: {name: blake3(disk).hexdigest() for name, disk in world.points[seq].items()}
            for seq in offered
        }
        objects = {key: each.data for key, each in world.store._objects.items()}
        return Golden(objects, points)


async def _commit(world: World, root: dict[int, bytes], data: dict[int, bytes]) -> None:
    """Content of both disks; a block that goes zero, and one that becomes like another."""
    batches = (
        batch_of(0, root, zero=((86, 2),), refs=((89, 0, 30),)),
        batch_of(1, data, refs=((39, 0, 31),)),
    )
    header = await world.author.commit(batches, grade="crash")
    root_disk, data_disk = (world.disks[disk.number] for disk in DISKS)
    for disk, content in ((root_disk, root), (data_disk, data)):
        for block, stored in content.items():
            disk[block * BLOCK : (block + 1) * BLOCK] = stored
    root_disk[86 * BLOCK : 88 * BLOCK] = bytes(2 * BLOCK)
    root_disk[89 * BLOCK : 90 * BLOCK] = root_disk[30 * BLOCK : 31 * BLOCK]
    data_disk[39 * BLOCK : 40 * BLOCK] = root_disk[31 * BLOCK : 32 * BLOCK]
    world.points[header.seq] = {
        disk.name: bytes(world.disks[disk.number][: disk.size]) for disk in DISKS
    }


async def _main() -> None:
    build_golden.write(NAME, await build())


if __name__ == "__main__":
    trio.run(_main)
