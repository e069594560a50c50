"""Writes the golden vault with branches: ``python -m tests.branches.build_golden``.

Run it only when the format is changed on purpose, like that of the other golden vaults.
"""

from __future__ import annotations

import trio
from blake3 import blake3

from stages.model import BLOCK, Disk
from tests.branches.support import Branch, forest
from tests.vault import build_golden
from tests.vault.build_golden import Golden, KeepingStore
from tests.vault.support import noise_block, text_block

NAME = "branch"
ROOT, DATA = 0, 1
DISKS = (Disk(ROOT, "root", 90 * BLOCK + 100), Disk(DATA, "data", 20 * BLOCK))


def words(first: int, count: int, word: str) -> dict[int, bytes]:
    """Blocks that compress."""
    return {at: text_block(f"{word} {at}") for at in range(first, first + count)}


async def build() -> tuple[Golden, list[Branch]]:
    """A group, a branch of its second commit, and a branch of that; all go on."""
    store = KeepingStore()
    async with forest(store) as woods:
        first = await woods.plant(*DISKS)
        await first.write((ROOT, words(0, 70, "first")), (DATA, {3: noise_block("three")}))
        await first.author.checkpoint()
        await first.write((ROOT, words(60, 8, "more")), zero={DATA: ((0, 2),)})
        second = await woods.branch(first, 2)
        await first.write((ROOT, words(0, 90, "later")))
        await second.write((ROOT, words(5, 3, "second")), refs={DATA: ((9, ROOT, 61),)})
        await second.author.checkpoint()
        await second.write(zero={ROOT: ((30, 10),)})
        grown = (DISKS[0], Disk(DATA, "data", 30 * BLOCK))
        third = await woods.branch(second, 2, *grown)
        await third.write((DATA, words(25, 2, "third")), refs={ROOT: ((80, DATA, 3),)})
    points = {disk.name: digest_of(third, disk) for disk in grown}
    return Golden(dict(store.objects), {1: points}), [first, second, third]


def digest_of(branch: Branch, disk: Disk) -> str:
    """BLAKE3 of a disk at the newest commit."""
    return blake3(branch.moments[branch.tail].image(disk.number)).hexdigest()


async def _main() -> None:
    build_golden.write(NAME, (await build())[0])


if __name__ == "__main__":
    trio.run(_main)
