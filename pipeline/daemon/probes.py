"""Read-only looks at vaults that are away, shared by all machines that wait for one."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from pipeline.assembly import vault_store
from pipeline.retry import PROBES
from stages.errors import BackstayError
from stages.ports import Machine
from stages.vault import layout

_FRESH = 0.5  # of the seconds between two looks: a result that others use too


@dataclass
class _Seen:
    """The newest look at one vault."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    at: float | None = None
    well: bool = False


class Probes:
    """``seconds`` between two looks at a vault, however many wait for it."""

    def __init__(self, ports: Machine, seconds: float):
        self._ports = ports
        self._seconds = seconds
        self._seen: dict[str, _Seen] = {}

    async def until_well(self, url: str) -> None:
        """Return when the vault at ``url`` has answered twice in a row."""
        good = 0
        while good < PROBES:
            await self._ports.clock.sleep(self._seconds)
            good = good + 1 if await self._look(url) else 0

    async def _look(self, url: str) -> bool:
        seen = self._seen.setdefault(url, _Seen())
        async with seen.lock:
            now = self._ports.clock.monotonic()
            if seen.at is None or now - seen.at >= _FRESH * self._seconds:
                seen.well = await self.probe(url)
                seen.at = self._ports.clock.monotonic()
            return seen.well

    async def probe(self, url: str) -> bool:
        """Does the vault answer? Reads only."""
        try:
            store = vault_store(self._ports, url, patience=0.0)
            try:
                return await store.info(layout.VAULT) is not None
            finally:
                await store.aclose()
        except BackstayError:
            return False
