"""The stores of vaults as machines share them, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pipeline import assembly
from pipeline.assembly import vault_stores
from pipeline.config.model import Config
from pipeline.daemon.traffic import TELL_SECONDS, fields_of, tell_traffic
from pipeline.supervisor.traffic import VaultTraffic
from stages import ports
from stages.errors import ObjectMissing
from stages.store.memory import MemoryStore
from tests.daemon.test_ladder import VirtualClock
from tests.ports.watched import machine
from tests.whole.memfiles import MemFiles

MB = 10**6


class Counted(MemoryStore):
    """How often it was closed."""

    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def _config(limit: dict[str, Any] | None = None, seal: str = "auto") -> Config:
    def one(name: str, vault: str) -> dict[str, Any]:
        disk = {"path": f"/{name}", "capture": "nbd", "listen": f"unix:/{name}.sock"}
        return {"vault": vault, "disks": {"d": disk}}

    return Config.model_validate(
        {
            "daemon": {"state": "/state"},
            "vaults": {
                "v": {"url": "file:/v", "trust": "/t", **({"limit": limit} if limit else {})},
                "w": {"url": "file:/w", "trust": "/t"},
            },
            "pipelines": {"default": {"cache": {"seal_after": seal}}},
            "machines": {"a": one("a", "v"), "b": one("b", "v"), "c": one("c", "w")},
        }
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    made: list[Counted] = []

    def open_store(url: str, _: ports.Machine) -> Counted:
        made.append(Counted(url))
        return made[-1]

    monkeypatch.setattr(assembly, "open_store", open_store)
    return made


def _ports() -> ports.Machine:
    found = machine(MemFiles())
    return ports.Machine(VirtualClock(), found.offload, found.entropy, found.files)


async def test_one_store_for_a_vault_and_its_counters_outlive_it(opened: list[Counted]) -> None:
    stores = vault_stores(_ports(), _config())
    first, second, other = stores.store("v", "a"), stores.store("v", "b"), stores.store("w", "c")
    assert [one.url for one in opened] == ["file:/v", "file:/w"]
    await first.put("k", [b"123"])
    assert await second.get("k") == b"123"
    with pytest.raises(ObjectMissing):
        await other.get("k")
    await first.aclose()
    await first.aclose()
    assert opened[0].closed == 0
    await second.aclose()
    assert opened[0].closed == 1
    again = stores.store("v", "a")
    assert len(opened) == 3
    await again.put("k2", [b"4567"])
    found = stores.traffic()
    assert found["v"].store.of("put").calls == 2
    assert found["v"].store.of("put").bytes == 7
    assert found["w"].store.of("get").errors == (("ObjectMissing", 1),)
    assert found["v"].upload_limit is None


async def test_the_limit_is_the_vaults_and_follows_its_schedule(
    opened: list[Counted], autojump_clock: MockClock
) -> None:
    # Virtual time begins in the first second of 1970, a Thursday.
    row = {"days": "thu", "hours": "01:00-02:00", "upload": "1MB/s"}
    limit = {"timezone": "UTC", "upload": "2MB/s", "schedule": [row]}
    stores = vault_stores(_ports(), _config(limit))
    first, second, other = stores.store("v", "a"), stores.store("v", "b"), stores.store("w", "c")

    async def ship(store: Any, name: str, count: int) -> None:
        for number in range(count):
            await store.put(f"{name}/{number}", [bytes(MB)])

    async def together(prefix: str) -> float:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ship, first, f"{prefix}a", 10)
            nursery.start_soon(ship, second, f"{prefix}b", 10)
            nursery.start_soon(ship, other, f"{prefix}c", 100)
        return trio.current_time() - began

    await trio.sleep(10 - trio.current_time() % 10)
    assert 8.5 <= await together("x") <= 9.6
    assert stores.traffic()["v"].upload_limit == 2 * MB
    await trio.sleep(3600 - trio.current_time() % 3600)
    assert 17 <= await together("y") <= 19.5
    assert stores.traffic()["v"].upload_limit == MB


async def test_what_is_said_and_shown(opened: list[Counted], autojump_clock: MockClock) -> None:
    stores, said = vault_stores(_ports(), _config(seal="15s")), list[dict[str, Any]]()
    store = stores.store("v", "a")
    with trio.move_on_after(10 * TELL_SECONDS + 1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_traffic, stores, VirtualClock(), said.append)
            await trio.sleep(3 * TELL_SECONDS + 1)
            await store.put("k", [b"12345"])
            await store.page("")
    assert len(said) == 2  # at the start and when something had happened: idle, it says nothing
    shown = VaultTraffic()
    config = _config(seal="15s")
    (v, w) = shown.views(config, 0.0)
    assert (v.vault, v.machines, w.vault, w.machines) == ("v", 2, "w", 1)
    assert v.month.observed_seconds == 0
    assert v.month.puts == v.month.infos == 2 * 30 * 86400 // 15
    assert v.month.idle_puts == 2 * 4320
    shown.heard(1, "v", said[-1]["traffic"], 0.0)
    shown.heard(2, "v", said[-1]["traffic"], 10.0)  # another life, which has done the same
    shown.heard(2, "v", said[-1]["traffic"], 20.0)
    (v, _) = shown.views(config, 700.0)
    puts, lists = v.operations[0], v.operations[3]
    assert (puts.name, puts.calls, puts.bytes, sum(puts.latencies)) == ("put", 2, 10, 2)
    assert (lists.name, lists.calls, lists.errors) == ("list", 2, {})
    assert v.month.observed_seconds == 700
    assert v.month.puts == round(2 / 700 * 30 * 86400)
    assert fields_of(stores.traffic()["v"]) == said[-1]["traffic"]
