"""Moving frames that are needed out of objects of which little else is (R16).

Frames stay sealed and keep their numbers, so no map changes: a pack says where they are now. What
they were in goes once the floor that names the pack has come of age.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, ObjectMissing, StoreError
from stages.keeper.live import places_of
from stages.keeper.reach import Moves
from stages.model import U64
from stages.recover.opened import Group
from stages.recover.plan import GAP, HAUL_BYTES
from stages.recover.pointmap import PointMap
from stages.store.port import Put
from stages.vault import frame, layout, location
from stages.vault.container import HEAD_SIZE, header_reach
from stages.vault.floors import PackRef, pack_object

PACK_BYTES = 32 << 20  # of frames in a pack, at most: half of what a tail may hold
_TRIES = 1000
_TAILS = 65_536  # objects whose tail is remembered


@dataclass
class Moved:
    """Packs that were made; frames that stay where they are, as what is there is not theirs."""

    packs: list[PackRef] = field(default_factory=list)
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


class Repack:
    """Moves the frames of one group."""

    def __init__(self, group: Group, signer: Signer, next_number: int):
        self._group = group
        self._signer = signer
        self._next = next_number
        self._tails: dict[str, int] = {}
        self.moved = Moved()

    async def run(self, point: PointMap, frames: U64, moves: Moves) -> Moved:
        """Copy those of ``frames`` (n,), ascending, that lie in objects of ``moves``."""
        chosen: list[tuple[U64, U64]] = []

        def pick(some: U64, rows: U64) -> None:
            here = np.array([_is_in(moves, each) for each in _names(some, rows)], np.bool_)
            if here.any():
                chosen.append((some[here], rows[here]))

        await places_of(point, frames, pick)
        for some, rows in _batches(chosen):
            await self._pack(some, rows)
        return self.moved

    async def _pack(self, frames: U64, rows: U64) -> None:
        contents = await self._fetch(frames, rows)
        good = [at for at, content in enumerate(contents) if content is not None]
        if not good:
            return
        parts = tuple(content for content in contents if content is not None)
        lengths = np.array([len(part) for part in parts], np.uint64)
        offsets = np.cumsum(lengths) - lengths
        kept = frames[good]
        spans = offsets << np.uint64(32) | lengths
        scope, store = self._group.scope, self._group.log.store
        for _ in range(_TRIES):
            number, self._next = self._next, self._next + 1
            made = pack_object(scope, number, kept, spans, parts, self._signer)
            if await store.put(layout.pack(scope.group, number), made) is Put.CREATED:
                size = int(lengths.sum())
                self.moved.packs.append(PackRef(number, int(kept[0]), int(kept[-1]), size))
                self.moved.bytes += size
                return
        raise StoreError("no free number for a pack", operation="repack", subject=store.url)

    async def _fetch(self, frames: U64, rows: U64) -> list[bytes | None]:
        """The stored frames, in order; None for one that is not where it should be."""
        found: list[bytes | None] = [None] * len(frames)
        wanted: dict[str, list[tuple[int, int, int]]] = {}
        for at, row in enumerate(rows):
            place = location.place(row)
            key = self._key(int(frames[at]), place)
            wanted.setdefault(key, []).append((place.offset, place.length, at))
        for key, spans in wanted.items():
            spans.sort()
            start = 0
            for end in range(1, len(spans) + 1):
                if end == len(spans) or _apart(spans[start], spans[end - 1], spans[end]):
                    await self._haul(key, spans[start:end], frames, found)
                    start = end
        return found

    async def _haul(
        self, key: str, spans: list[tuple[int, int, int]], frames: U64, found: list[bytes | None]
    ) -> None:
        store = self._group.log.store
        first = spans[0][0]
        length = max(offset + size for offset, size, _ in spans) - first
        try:
            base = 0 if "/data/" in key else await self._tail_at(key)
            data = await store.get(key, base + first, length)
        except (ObjectMissing, DamagedObject) as error:
            self.moved.problems.append(f"{key}: {error.message}")
            return
        for offset, size, at in spans:
            stored = data[offset - first : offset - first + size]
            try:
                _check_frame(stored, int(frames[at]), key)
            except DamagedObject as error:
                self.moved.problems.append(str(error))
                continue
            found[at] = stored

    def _key(self, number: int, place: location.Place) -> str:
        gid = self._group.scope.group
        if place.packed:
            return layout.pack(gid, place.number)
        if place.inline:
            return layout.commit(gid, place.number)
        return layout.data(gid, location.split(number)[0], place.number)

    async def _tail_at(self, key: str) -> int:
        if key not in self._tails:
            head = await self._group.log.store.get(key, 0, HEAD_SIZE)
            if len(head) < HEAD_SIZE:
                raise DamagedObject("cut short", subject=key)
            if len(self._tails) >= _TAILS:
                self._tails.clear()
            self._tails[key] = header_reach(head)
        return self._tails[key]


def _check_frame(stored: bytes, which: int, key: str) -> None:
    """What can be told without its key: that it says to be this frame, and is whole."""
    epoch, number = location.split(which)
    head = frame.read_head(stored, key)
    right = (head.epoch, head.number) == (epoch, number)
    if not right or len(stored) != frame.HEADER.size + head.sealed:
        raise DamagedObject(f"frame {epoch}/{number} is not in its place", subject=key)


def _names(frames: U64, rows: U64) -> list[tuple[int, int]]:
    return list(zip((frames >> np.uint64(32)).tolist(), rows[:, 0].tolist(), strict=True))


def _is_in(moves: Moves, name: tuple[int, int]) -> bool:
    epoch, number = name
    if number & location.INLINE:
        return number & ~location.INLINE in moves.tails
    if number & location.PACKED:
        return number & ~location.PACKED in moves.packs
    return (epoch, number) in moves.data


def _batches(chosen: list[tuple[U64, U64]]) -> list[tuple[U64, U64]]:
    """Frames and places cut so that each piece fits into a pack."""
    if not chosen:
        return []
    frames = np.concatenate([some for some, _ in chosen])
    rows = np.concatenate([rows for _, rows in chosen])
    ends = np.cumsum(rows[:, 1] & np.uint64(0xFFFFFFFF))
    which = (ends - np.uint64(1)) // np.uint64(PACK_BYTES)
    cuts = [0, *(np.flatnonzero(which[1:] != which[:-1]) + 1).tolist(), len(frames)]
    pairs = itertools.pairwise(cuts)
    return [(frames[low:high], rows[low:high]) for low, high in pairs]


def _apart(
    first: tuple[int, int, int], last: tuple[int, int, int], following: tuple[int, int, int]
) -> bool:
    far = following[0] > last[0] + last[1] + GAP
    return far or following[0] + following[1] - first[0] > HAUL_BYTES
