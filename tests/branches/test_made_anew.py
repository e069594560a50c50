"""A branch's map that is made anew while somebody reads on in what it was before."""

from __future__ import annotations

import numpy as np
import trio
import trio.testing

from stages.model import U64
from stages.recover.pointmap import PointMap
from stages.system import SystemFiles
from stages.vault import layout, location
from tests.branches.reading import DISK, ROOT, two
from tests.branches.support import Branch, forest
from tests.recover.maps import open_files
from tests.recover.past import CountingStore


class Held(CountingStore):
    """The first get of ``key`` waits for ``event``."""

    def __init__(self) -> None:
        super().__init__()
        self.key = ""
        self.event = trio.Event()

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key == self.key:
            self.key = ""
            await self.event.wait()
        return await super().get(key, offset, length)


async def frames_of_the_parent(branch: Branch) -> tuple[U64, U64, U64]:
    """Of the branch's newest point: locations, the frames that are its parent's, their places."""
    point = await PointMap.build(
        await branch.opened(), SystemFiles(), branch.tail, checkpoints=False
    )
    locations = await point.locations(ROOT, 0, DISK.blocks)
    frames = np.unique(location.frame_of(locations[locations > location.ZERO]))
    inherited = frames[frames >> np.uint64(32) <= np.uint64(point.group.above)]
    assert len(inherited)
    places = await point.places(inherited)
    point.close()
    return locations, inherited, places


async def test_who_was_opening_the_parent_looks_again_and_nothing_stays_open() -> None:
    store = Held()
    async with forest(store) as woods:
        parent, branch = await two(woods)
        await branch.author.checkpoint()
        kept = await store.keys(f"{branch.gid.hex()}/checkpoints/")
        pages, *_ = [key for key in kept if not key.endswith("manifest")]  # of maps and digests
        locations, inherited, places = await frames_of_the_parent(branch)
        await store.spoil(pages, 60)
        before = open_files()
        point = await PointMap.build(await branch.opened(), SystemFiles(), branch.tail)
        store.key = layout.commit(parent.gid, 1)

        async def look() -> None:
            assert (await point.places(inherited) == places).all()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            assert not store.key  # it is on its way to the parent
            assert (await point.locations(ROOT, 0, DISK.blocks) == locations).all()
            assert point.group.log.ignored  # the map was made anew for that
            store.event.set()
        point.close()
        assert open_files() == before
