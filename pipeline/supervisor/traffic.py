"""What became of the vaults, over all lives of delivery since the supervisor began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.assembly import seal_seconds
from pipeline.config.model import Config
from pipeline.control.views import MonthView, OperationView, StoreView
from pipeline.health.cost import History, Month, idle_month, month_by_configuration
from stages.store.observe import BUCKETS, quantile

OPERATIONS = ("put", "get", "info", "list", "delete")


@dataclass
class _Sum:
    """One kind of request. Counts of lives that have ended, and of the one that speaks now."""

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def plus(self, said: Mapping[str, Any]) -> _Sum:
        """With what a life said of itself."""
        if not said:
            return self
        return _Sum(
            self.calls + int(said["calls"]),
            self.bytes + int(said["bytes"]),
            self.seconds + float(said["seconds"]),
            self.errors + Counter({str(k): int(v) for k, v in said["errors"].items()}),
            [a + int(b) for a, b in zip(self.latencies, said["latencies"], strict=True)],
        )

    def view(self, name: str) -> OperationView:
        """For others."""
        return OperationView(
            name,
            self.calls,
            self.bytes,
            dict(self.errors),
            self.seconds,
            quantile(self.latencies, 0.5),
            quantile(self.latencies, 0.99),
            tuple(self.latencies),
        )


@dataclass
class _Vault:
    life: int = 0
    said: Mapping[str, Any] = field(default_factory=dict)
    before: dict[str, _Sum] = field(default_factory=lambda: {name: _Sum() for name in OPERATIONS})
    history: History = field(default_factory=History)

    def now(self) -> dict[str, _Sum]:
        """With the life that speaks now."""
        said = self.said.get("operations", {})
        return {name: known.plus(said.get(name, {})) for name, known in self.before.items()}


class VaultTraffic:
    """Hears what delivery says of its vaults."""

    def __init__(self) -> None:
        self._vaults: dict[str, _Vault] = {}

    def heard(self, life: int, vault: str, fields: Mapping[str, Any], now: float) -> None:
        """``life`` of delivery says this at monotonic ``now``; each counts from nothing."""
        one = self._vaults.setdefault(vault, _Vault())
        if life != one.life:
            one.before = one.now()
            if not one.said:
                one.history.note(now, {})
        one.life, one.said = life, fields
        one.history.note(now, _totals(one.now()))

    def views(self, config: Config, now: float) -> tuple[StoreView, ...]:
        """Of each vault of the configuration that a live machine uses, by name."""
        seals: dict[str, list[float]] = {}
        for machine in config.machines.values():
            if machine.live:
                seals.setdefault(machine.vault, []).append(seal_seconds(config, machine))
        return tuple(
            self._view(name, config.vaults[name].url, found, now)
            for name, found in sorted(seals.items())
        )

    def _view(self, name: str, url: str, seals: list[float], now: float) -> StoreView:
        one = self._vaults.get(name) or _Vault()
        sums = one.now()
        month = one.history.month(now, _totals(sums)) or month_by_configuration(seals)
        return StoreView(
            vault=name,
            url=str(one.said.get("url", url)),
            machines=len(seals),
            upload_limit=one.said.get("upload_limit"),
            download_limit=one.said.get("download_limit"),
            waiting=int(one.said.get("waiting", 0)),
            operations=tuple(sums[each].view(each) for each in OPERATIONS),
            month=_month(month, idle_month(len(seals))),
        )


def _totals(sums: Mapping[str, _Sum]) -> dict[str, int]:
    found = {name: one.calls for name, one in sums.items()}
    return found | {"sent": sums["put"].bytes, "fetched": sums["get"].bytes}


def _month(month: Month, idle: int) -> MonthView:
    return MonthView(
        observed_seconds=month.observed_seconds,
        puts=month.put,
        gets=month.get,
        infos=month.info,
        lists=month.list,
        deletes=month.delete,
        sent_bytes=month.sent,
        fetched_bytes=month.fetched,
        idle_puts=idle,
    )
