"""The stores of a configuration's vaults as its machines use them: observed, patient, limited.

One store for each vault, however many machines use it: they share its connections, its limits and
its counters. It is opened for the first of them and closed with the last, so that what was read at
its opening, like credentials, is read again when all have failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config.limit import Limit
from pipeline.config.model import Config
from pipeline.policy.rates import Rates, rates_of
from stages.ports import Buffer, Machine
from stages.store.limit import LimitedStore, Limiter
from stages.store.observe import Counters, ObservedStore, StoreStatistics
from stages.store.port import ObjectStore

OpenBase = Callable[[str], ObjectStore]
"""The bare store of a URL."""

Again = Callable[[Sequence[Buffer]], None]
Patient = Callable[[ObjectStore, Again], ObjectStore]
"""A store that retries blips; the callback hears of each put that is sent once more."""

_HOLDS_SECONDS = 1.0  # a rate, once looked up


@dataclass
class _Now:
    """What ``rates`` say, looked up again after a while: zones are not free."""

    ports: Machine
    rates: Rates
    _rate: int | None = None
    _until: float = float("-inf")

    def __call__(self) -> int | None:
        now = self.ports.clock.monotonic()
        if now >= self._until:
            self._rate = self.rates.at(self.ports.clock.wall_us())
            self._until = now + _HOLDS_SECONDS
        return self._rate


@dataclass
class _Shared:
    """One vault."""

    url: str
    counters: Counters
    upload: Limiter
    download: Limiter
    base: ObservedStore | None = None
    users: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """A snapshot of one vault. Limits in bytes a second that hold now, None for none; ``waiting``:
    puts and gets that wait for their turn."""

    store: StoreStatistics
    upload_limit: int | None
    download_limit: int | None
    waiting: int


class VaultStores:
    """Made by ``pipeline.assembly.vault_stores``. One for each process that protects machines."""

    def __init__(self, ports: Machine, config: Config, open_base: OpenBase, patient: Patient):
        self._ports = ports
        self._config = config
        self._open_base = open_base
        self._patient = patient
        self._vaults: dict[str, _Shared] = {}

    def store(self, vault: str, machine: str) -> ObjectStore:
        """The store of the vault of this name, for ``machine``; to be closed. Raises what opening
        it raises."""
        shared = self._shared(vault)
        if shared.base is None:
            shared.base = ObservedStore(
                self._open_base(shared.url), self._ports.clock, shared.counters
            )
        shared.users += 1
        return _Lease(shared, shared.base, machine, self._patient)

    def traffic(self) -> dict[str, Traffic]:
        """Of all vaults that were used, by name."""
        return {
            name: Traffic(
                shared.counters.statistics(shared.url),
                _whole(shared.upload.rate),
                _whole(shared.download.rate),
                shared.upload.waiting + shared.download.waiting,
            )
            for name, shared in self._vaults.items()
        }

    def _shared(self, vault: str) -> _Shared:
        if vault not in self._vaults:
            found = self._config.vaults[vault]
            upload, download = rates_of(found.limit or Limit())
            clock = self._ports.clock
            self._vaults[vault] = _Shared(
                found.address,
                Counters(),
                Limiter(clock, _Now(self._ports, upload)),
                Limiter(clock, _Now(self._ports, download)),
            )
        return self._vaults[vault]


class _Lease(LimitedStore):
    """One machine's use of a shared store. It pays once for an object; what is sent again because
    an answer was lost is owed."""

    def __init__(self, shared: _Shared, base: ObservedStore, machine: str, patient: Patient):
        def again(parts: Sequence[Buffer]) -> None:
            shared.upload.charge(sum(memoryview(part).nbytes for part in parts))

        super().__init__(
            patient(base, again), machine, upload=shared.upload, download=shared.download
        )
        self._shared = shared
        self._base = base
        self._released = False

    async def aclose(self) -> None:
        """The last one closes what is shared."""
        if self._released:
            return
        self._released = True
        self._shared.users -= 1
        if not self._shared.users:
            self._shared.base = None
            await self._base.aclose()


def _whole(rate: float | None) -> int | None:
    return None if rate is None else int(rate)
