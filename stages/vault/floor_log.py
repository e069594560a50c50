"""Reading floors, holds and packs of a group, and appending a floor (R16).

Floors are numbered from 1 and never removed, so the newest is found without a list. Holds are
listed: only keepers and people who set them read them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, MissingData, NotAdmitted, ObjectMissing
from stages.model import U64
from stages.stage import together
from stages.store.own import put_own
from stages.store.port import ObjectInfo, ObjectStore, walk
from stages.vault import layout, location
from stages.vault.charter import Charter
from stages.vault.container import HEAD_SIZE, MAX_BODY, MAX_HEADER, header_reach
from stages.vault.floors import Floor, Hold, PackRef, floor_object, read_floor, read_hold, read_pack
from stages.vault.numbered import last_there
from stages.vault.sealing import Scope

_LOOK_BACK = 16  # floors of strangers, or damaged, that are passed over
MOST_HOLDS = 65_536
_PARALLEL = 32  # holds that are read at a time
_TABLES = 256  # packs whose tables are remembered
_FIRST = 64 << 10  # enough for most packs' tables


@dataclass(frozen=True, slots=True)
class FloorsFound:
    """``floor``: the newest that verifies, if any. ``last``: number of the newest object.

    ``passed``: why newer ones do not count; ``damaged`` if one of those may have been a floor.
    """

    floor: Floor | None = None
    last: int = 0
    passed: tuple[str, ...] = ()
    damaged: bool = False


async def load_floor(store: ObjectStore, scope: Scope, charter: Charter) -> FloorsFound:
    """The floor in force. Raises ``UnknownVersion`` for one of a newer release, store errors."""
    last = await last_there(store, partial(layout.floor, scope.group))
    passed: list[str] = []
    damaged = False
    for number in range(last, max(0, last - _LOOK_BACK), -1):
        key = layout.floor(scope.group, number)
        try:
            data = await store.get(key, 0, HEAD_SIZE + MAX_HEADER + MAX_BODY)
            floor = read_floor(data, scope, charter, number)
        except NotAdmitted as error:
            passed.append(str(error))
        except (DamagedObject, ObjectMissing) as error:
            damaged = True
            passed.append(f"{error}; the floor before it is taken")
        else:
            return FloorsFound(floor, last, tuple(passed), damaged)
    return FloorsFound(None, last, tuple(passed), damaged)


async def append_floor(store: ObjectStore, scope: Scope, floor: Floor, signer: Signer) -> bool:
    """Put a floor; False if somebody else has its number."""
    key = layout.floor(scope.group, floor.number)
    return await put_own(store, key, floor_object(scope, floor, signer))


@dataclass(frozen=True, slots=True)
class HoldsFound:
    """``holds`` by point. ``notes``: objects that are none. ``problems``: some that may be one and
    cannot be read: whoever deletes must not go on."""

    holds: tuple[Hold, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


async def load_holds(store: ObjectStore, scope: Scope, charter: Charter) -> HoldsFound:
    """All holds of a group. Raises ``UnknownVersion``, store errors."""
    prefix = layout.holds_prefix(scope.group)
    infos = [info async for info in walk(store, prefix, most=MOST_HOLDS)]

    async def look(info: ObjectInfo) -> Hold | str | DamagedObject | None:
        """What it is: a hold, a note, a problem, or none any more."""
        name = info.key.removeprefix(prefix)
        if not name.isdecimal() or layout.hold(scope.group, int(name)) != info.key:
            return f"{info.key}: not a hold"
        try:
            data = await store.get(info.key, 0, HEAD_SIZE + MAX_HEADER)
            return read_hold(data, scope, charter, int(name))
        except ObjectMissing:
            return None  # released meanwhile
        except NotAdmitted as error:
            return str(error)
        except DamagedObject as error:
            return error

    found = await together(infos, look, at_once=_PARALLEL)
    return HoldsFound(
        tuple(each for each in found if isinstance(each, Hold)),
        tuple(each for each in found if isinstance(each, str)),
        tuple(str(each) for each in found if isinstance(each, DamagedObject)),
    )


class Packs:
    """Where moved frames are now. Tables are read when a frame may be in one.

    ``note`` hears of each pack that is missing, once.
    """

    def __init__(
        self,
        store: ObjectStore,
        scope: Scope,
        charter: Charter,
        refs: tuple[PackRef, ...],
        note: Callable[[str], None],
    ):
        self._store = store
        self._scope = scope
        self._charter = charter
        self._refs = refs
        self._tables: OrderedDict[int, tuple[U64, U64]] = OrderedDict()
        self._note = note
        self._missing: set[int] = set()  # packs that were looked for in vain

    async def move(self, frames: U64, rows: U64) -> U64:
        """``rows`` (n, 2) of ascending ``frames`` (n,), as they are after all moves.

        Where a pack is missing frames stay where they were: in a copy of a vault a floor can
        arrive before its packs, and what was moved does not go within the grace. Raises ``Damage``
        if a pack that may hold one of them cannot be read.
        """
        moved = rows
        for ref in self._refs:  # of two that have a frame the newer counts
            low, high = frames.searchsorted(np.array([ref.first, ref.last + 1], np.uint64)).tolist()
            if low == high:
                continue
            try:
                known, spans = await self._table(ref.number)
            except MissingData as error:
                if ref.number not in self._missing:
                    self._missing.add(ref.number)
                    self._note(f"{error}; frames are read from where they were before")
                continue
            wanted = frames[low:high]
            at = known.searchsorted(wanted).clip(0, len(known) - 1)
            hit = np.flatnonzero(known[at] == wanted)
            if len(hit):
                if moved is rows:
                    moved = rows.copy()
                moved[low + hit, 0] = ref.number | location.PACKED
                moved[low + hit, 1] = spans[at[hit]]
        return moved

    async def _table(self, number: int) -> tuple[U64, U64]:
        table = self._tables.get(number)
        if table is None:
            table = await load_pack(self._store, self._scope, self._charter, number)
            self._tables[number] = table
            if len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(number)
        return table


async def load_pack(
    store: ObjectStore, scope: Scope, charter: Charter, number: int
) -> tuple[U64, U64]:
    """Frames and spans of a pack. Raises ``Damage``."""
    key = layout.pack(scope.group, number)
    try:
        data = await store.get(key, 0, _FIRST)
        reach = header_reach(data)
        if reach > len(data) >= _FIRST:
            data += await store.get(key, len(data), reach - len(data))
    except ObjectMissing:
        raise MissingData("a pack is missing", subject=key) from None
    return read_pack(data, scope, charter, number)
