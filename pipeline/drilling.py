"""The drill of a key: some content of every machine's newest point is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.recovery import Access
from stages.errors import DamagedObject, NotFound
from stages.ports import Machine
from stages.recover.extract import Laid
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.recover.points import choose
from stages.recover.sweep import Sweep
from stages.vault.charter import Pin
from stages.vault.keyfile import PrivateKey
from stages.vault.location import ZERO

_DRILL_BLOCKS = 4096


@dataclass(frozen=True, slots=True)
class Drilled:
    """The points of which some was opened, by machine, and what a person should know of them."""

    points: dict[str, int]
    notes: tuple[str, ...]


async def drill_vault(ports: Machine, url: str, key: PrivateKey, pins: tuple[Pin, ...]) -> Drilled:
    """Open some content of every machine's newest point. Raises what a restore would raise.

    A machine without a consistent point has nothing to try.
    """
    drilled: dict[str, int] = {}
    notes: list[str] = []
    async with Access(ports, url, key, pins).vault() as vault:
        for group in await vault.groups():
            if not group.tail:
                continue
            name = await group.name()
            try:
                choice = await choose(group, name, None)
            except NotFound:
                continue
            await _drill(group, ports, choice.point.seq)
            drilled.setdefault(name, choice.point.seq)
            noted = dict.fromkeys((*choice.notes, *group.log.ignored))
            notes += [f"{name}: {note}" for note in noted]
        if vault.problems:
            raise DamagedObject(vault.problems[0], operation="drill", subject=url)
    return Drilled(drilled, tuple(notes))


async def _drill(group: Group, ports: Machine, seq: int) -> None:
    """Open the first content after a place of each disk that nobody can foresee."""
    point = await PointMap.build(group, ports.files, seq)
    sweep = Sweep(point, ports, window_blocks=_DRILL_BLOCKS)
    try:
        for disk in point.machine.disks:
            windows = sweep.windows(disk)
            start = int.from_bytes(ports.entropy.token(6)) % max(1, len(windows))
            for first in (*windows[start:], *windows[:start]):
                window = await sweep.locate(disk, first)
                if (window.locations > ZERO).any():
                    await sweep.extract(window, _discard)
                    break
    finally:
        point.close()
    if sweep.damage:
        bad = sweep.damage[0]
        hint = "'backstay verify' says what can be restored"
        raise DamagedObject(bad.reason, operation="drill", subject=bad.key, hint=hint)


def _discard(room: memoryview, laid: Sequence[Laid]) -> None:
    """Opening it was the point."""
