"""What delivery says of its vaults: how often and how fast they are asked, how many bytes went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.stores import Traffic, VaultStores
from stages.ports import Clock
from stages.store.observe import OperationStatistics

TELL_SECONDS = 2.0  # between two words; none where nothing has happened

_NAMES = {"page": "list"}  # as operators know them


async def tell_traffic(
    stores: VaultStores, clock: Clock, say: Callable[[dict[str, Any]], None]
) -> None:
    """Until cancelled."""
    said: dict[str, dict[str, Any]] = {}
    while True:
        for vault, traffic in stores.traffic().items():
            fields = fields_of(traffic)
            if fields != said.get(vault):
                said[vault] = fields
                say({"vault": vault, "traffic": fields})
        await clock.sleep(TELL_SECONDS)


def fields_of(traffic: Traffic) -> dict[str, Any]:
    """As JSON."""
    return {
        "url": traffic.store.url,
        "upload_limit": traffic.upload_limit,
        "download_limit": traffic.download_limit,
        "waiting": traffic.waiting,
        "operations": {
            _NAMES.get(one.name, one.name): _operation(one) for one in traffic.store.operations
        },
    }


def _operation(one: OperationStatistics) -> dict[str, Any]:
    return {
        "calls": one.calls,
        "bytes": one.bytes,
        "seconds": one.seconds,
        "errors": dict(one.errors),
        "latencies": list(one.latencies),
    }
