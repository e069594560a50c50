"""Deleting a machine's data at a second site: an operator's certificate may, a daemon's may not."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from stages.errors import StoreDenied
from stages.vault import layout
from tests.keeper.stores import Dated, in_store
from tests.keeper.test_deletion import delete, is_rest, old_world
from tests.site.serving import Served


async def test_with_the_certificate_of_an_operator(site_process: Served) -> None:
    with ExitStack() as stack:
        world = await old_world(stack)
        admin, web1 = site_process.store("admin"), site_process.store("web1")
        there = await in_store(world, admin)
        beside = Dated(web1, world.clock)
        beside.dates = there.store.dates
        folder = layout.group(world.scope.group)
        before = [info.key for info in await admin.page(folder)]
        with pytest.raises(StoreDenied, match="this needs operator"):
            await delete(replace(there, store=beside))
        assert [info.key for info in await admin.page(folder)] == before
        await delete(there)
        assert is_rest(world, {info.key for info in await admin.page(folder)})
        for store in (admin, web1):
            await store.aclose()
        site_process.empty()
