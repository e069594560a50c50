"""A walk over many pages asks Azure for each page once; what changes meanwhile is never hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.servers.cloud import Cloud
from stages.store.cloud import store as cloud_store
from stages.store.cloud.walks import Walk, Walks
from stages.store.open import open_store
from stages.store.port import ObjectStore
from stages.system import this_machine
from tests.vault.support import SECOND, SetClock

MACHINE = this_machine()
PAGE = 4


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Where each listing that is begun at the server starts; pages are small."""
    begun: list[str | None] = []
    really: Callable[..., Any] = obstore.list

    def counted(*arguments: Any, **options: Any) -> Any:
        begun.append(options["offset"])
        return really(*arguments, **options)

    monkeypatch.setattr(obstore, "list", counted)
    monkeypatch.setattr(cloud_store, "_LISTED", PAGE)
    return begun


async def _pages(store: ObjectStore, prefix: str) -> list[str]:
    keys: list[str] = []
    while len(keys) % PAGE == 0:
        found = await store.page(prefix, keys[-1] if keys else "", PAGE)
        keys += [info.key for info in found]
    return keys


async def test_one_listing_for_a_whole_walk(cloud: Cloud, lists: list[str | None]) -> None:
    store = open_store(cloud.url(), MACHINE)
    keys = [f"log/{number:04d}" for number in range(18)]
    for key in keys:
        await store.put(key, [b"x"])
    assert await _pages(store, "log/") == keys
    assert len(lists) == (1 if cloud.scheme == "az" else 5)  # the others know where to begin

    assert [info.key for info in await store.page("log/", "", PAGE)] == keys[:4]
    await store.put("log/0003a", [b"x"])
    await store.delete(keys[5])
    after = [info.key for info in await store.page("log/", keys[3], PAGE)]
    assert after == ["log/0003a", keys[4], keys[6], keys[7]]
    await store.aclose()


@given(st.lists(st.sampled_from(["begin", "keep", "change", "late", "go on"]), max_size=40))
def test_what_is_gone_on_with_is_fresh_and_nobody_elses(steps: list[str]) -> None:
    clock, changes, last = SetClock(), 0, 0
    walks = Walks(clock)
    out: list[tuple[Walk, int]] = []  # with the changes before it began
    kept: dict[str, tuple[Walk, int]] = {}
    for step in steps:
        if step == "begin":
            out.append((walks.take("a", ""), changes))
            assert out[-1][0].entries is None
            out[-1][0].entries = iter(())
        elif step == "keep" and out:
            last += 1
            kept[str(last)] = out.pop()
            walks.keep(kept[str(last)][0], str(last))
        elif step == "change":
            walks.forget()
            changes += 1
        elif step == "late":
            clock.wall += 40 * SECOND
        elif step == "go on" and kept:
            key = str(last)
            before = kept.pop(key, None)
            found = walks.take("a", key)
            fresh = before and before[1] == changes and before[0].began + 60 >= clock.monotonic()
            assert (found is (before and before[0])) == bool(fresh)
            assert walks.take("a", key).entries is None
            assert walks.take("b", key).entries is None
        assert len(walks._kept) <= 4
