"""The frames of a point for readers that come in any order: fetched when wanted, kept for a while.

A frame that several readers want is fetched once. Memory: ``cache_bytes`` of frames, ``_PARALLEL``
hauls on their way, and what the callers hold.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import trio

from stages.errors import BackstayError, DamagedObject
from stages.model import U64
from stages.ports import Offload
from stages.recover.again import TRIES, floors, moved_on
from stages.recover.extract import Extractor, Sink, each
from stages.recover.lineage import others_epochs
from stages.recover.plan import FrameNeed, Haul, hauls
from stages.recover.pointmap import PointMap
from stages.stage import crew

Name: TypeAlias = tuple[int, int]  # epoch and number of a frame
Lost: TypeAlias = tuple[str, str]  # key of an object, and why a frame cannot be had of it

_PARALLEL = 8


def frame_name(name: Name) -> str:
    """As errors call it that do not know its object."""
    return f"frame {name[0]}/{name[1]}"


class FrameCache:
    """Plain frames by name, least recently used first to go."""

    def __init__(self, point: PointMap, offload: Offload, cache_bytes: int):
        self._point = point
        self._extractor = Extractor(point.group, offload)
        self._limit = cache_bytes
        self._cache: OrderedDict[Name, bytes] = OrderedDict()
        self.held = 0  # bytes
        self._hauling = trio.CapacityLimiter(_PARALLEL)
        self._under_way: dict[Name, trio.Event] = {}

    def cached(self, name: Name) -> bytes | None:
        """A frame that is here, or None."""
        content = self._cache.get(name)
        if content is not None:
            self._cache.move_to_end(name)
        return content

    async def get(self, frames: U64, wanted: list[FrameNeed]) -> dict[Name, bytes]:
        """All ``wanted`` frames: from the cache, from a read under way, or from the store.

        ``frames``: their numbers, ascending. Raises ``Damage`` or store errors.
        """
        found: dict[Name, bytes] = {}
        while True:
            waiting: trio.Event | None = None
            missing = []
            for at, need in enumerate(wanted):
                name = (need.epoch, need.number)
                if name in found:
                    continue
                content = self.cached(name)
                if content is not None:
                    found[name] = content
                elif name in self._under_way:
                    waiting = self._under_way[name]
                else:
                    missing.append(at)
            if missing:
                picked = [wanted[at] for at in missing]
                found |= await self._fetch(frames[missing], picked, self._claim(picked))
            elif waiting is not None:
                await waiting.wait()
            else:
                for need in wanted:  # who fetched it may have wanted less
                    name = (need.epoch, need.number)
                    need.within(len(found[name]), frame_name(name))
                return found

    def begin(
        self, frames: U64, wanted: list[FrameNeed], own: set[Name]
    ) -> Callable[[], Awaitable[None]] | None:
        """Claim frames, but for those that are here or under way, and for ``own``, which the
        caller wants itself: whoever wants one of them from now on waits for what is returned, which
        has to be begun at once. It raises nothing: whoever wants what fails hears it. None if
        nothing is left to be fetched.
        """
        names = [(need.epoch, need.number) for need in wanted]
        taken = (own, self._cache, self._under_way)
        missing = [at for at, name in enumerate(names) if not any(name in one for one in taken)]
        if not missing:
            return None
        picked = [wanted[at] for at in missing]
        arrived = self._claim(picked)

        async def fetch() -> None:
            with suppress(BackstayError, OSError):
                await self._fetch(frames[missing], picked, arrived)

        return fetch

    def _claim(self, wanted: list[FrameNeed]) -> trio.Event:
        """Whoever wants one of these frames waits for ``_fetch``, which has to follow."""
        arrived = trio.Event()
        self._under_way.update(((need.epoch, need.number), arrived) for need in wanted)
        return arrived

    async def _fetch(
        self, frames: U64, wanted: list[FrameNeed], arrived: trio.Event
    ) -> dict[Name, bytes]:
        """Read claimed frames from the store."""
        found: dict[Name, bytes] = {}

        def take(need: FrameNeed, content: memoryview) -> None:
            found[need.epoch, need.number] = bytes(content)

        group = self._point.group
        try:
            for _ in range(TRIES):
                since = floors(group)
                bad = await self._read(frames, wanted, each(take))
                if not bad:
                    break
                if not await moved_on(group, self._point.seq, since):
                    key, reason = bad[0]
                    raise DamagedObject(reason, operation="read", subject=key)
            for name, content in found.items():
                self._remember(name, content)
        finally:
            for need in wanted:
                self._under_way.pop((need.epoch, need.number), None)
            arrived.set()
        return found

    async def _read(self, frames: U64, wanted: list[FrameNeed], keep: Sink) -> list[Lost]:
        """Hand all frames to ``keep``; key and reason of what cannot be had."""
        bad: list[Lost] = []

        async def one(haul: Haul) -> None:
            async with self._hauling:
                alone = self._hauling.borrowed_tokens == 1
                lost = await self._extractor.run(haul, keep, alone=alone)
            bad.extend((haul.key, reason) for _, reason in lost[:1])

        rows = await self._point.places(frames)
        group = self._point.group
        others = await others_epochs(group, {need.epoch for need in wanted})
        planned = hauls(group.scope.group, wanted, rows, others)
        if len(planned) == 1:
            await one(planned[0])
        else:
            async with crew() as nursery:
                for haul in planned:
                    nursery.start_soon(one, haul)
        return bad

    def _remember(self, name: Name, content: bytes) -> None:
        if name not in self._cache:
            self._cache[name] = content
            self.held += len(content)
        while self.held > self._limit:
            self.held -= len(self._cache.popitem(last=False)[1])
