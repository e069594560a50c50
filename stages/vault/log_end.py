"""Where a log ends: found by asking for single commits, without a list."""

from __future__ import annotations

from stages.stage import crew
from stages.store.port import ObjectStore
from stages.vault import commits, layout

_LOOK_BEYOND = 16  # a hole in the log must not pass for its end


class LogEnd:
    """Looks for the last commit of a group's log."""

    def __init__(self, store: ObjectStore, group: bytes):
        self._store = store
        self._group = group

    async def find(self, first: int) -> tuple[int, bool]:
        """The commit before the first hole of a log that begins at ``first``, and whether any was
        seen beyond the hole. Raises store errors.

        Probes at powers of two, then between the last two of them, ``PARALLEL`` at a time.
        """
        before = first - 1
        low, high, holed = before, 0, False
        for power in range(0, 64, commits.PARALLEL):
            powers = range(power, power + commits.PARALLEL)
            low, high, seen = await self._narrow(low, 0, [before + (1 << each) for each in powers])
            holed |= seen
            if high:
                break
        while high - low > 1:
            step = -(-(high - low) // (commits.PARALLEL + 1))
            low, high, seen = await self._narrow(low, high, list(range(low + step, high, step)))
            holed |= seen
        return low, holed

    async def goes_on(self, newest: int) -> bool:
        """Is there one of the commits not far beyond the first that is missing?"""
        return any(await self._exist(range(newest + 2, newest + 2 + _LOOK_BEYOND)))

    async def _narrow(self, low: int, high: int, probes: list[int]) -> tuple[int, int, bool]:
        """Bounds of the end: the last probe before a missing one, the first that is missing."""
        exist = await self._exist(probes)
        if all(exist):
            return probes[-1], high, False
        first = exist.index(False)
        return ([low, *probes][first], probes[first], any(exist[first:]))

    async def _exist(self, seqs: range | list[int]) -> list[bool]:
        found: dict[int, bool] = {}

        async def probe(seq: int) -> None:
            found[seq] = await self._store.info(layout.commit(self._group, seq)) is not None

        async with crew() as nursery:
            for seq in seqs:
                nursery.start_soon(probe, seq)
        return [found[seq] for seq in seqs]
