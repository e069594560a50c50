"""The stores under the conformance suite. A new store joins with one entry in ``STORES``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from bench.servers.cloud import Cloud
from stages.ports import Machine
from stages.store.faults import FaultPlan, FaultStore
from stages.store.file import FileStore
from stages.store.memory import MemoryStore
from stages.store.observe import ObservedStore
from stages.store.open import open_store
from stages.store.port import ObjectStore
from stages.store.retry import RetryStore
from stages.system import this_machine
from tests.ports.watched import WatchedFiles, unsynced
from tests.servers.fixtures import azure, google, s3
from tests.site.serving import QUICK, Served, served

__all__ = ["azure", "google", "s3"]


def quick() -> Machine:
    """Real files and threads without fsync: for tests of thousands of objects."""
    real = this_machine()
    return Machine(real.clock, real.offload, real.entropy, WatchedFiles(unsynced))


async def _file(root: Path, machine: Machine) -> FileStore:
    store = FileStore(f"{root}/store", machine)
    await store.create_root()
    return store


async def memory(_root: Path) -> ObjectStore:
    return MemoryStore()


async def file(root: Path) -> ObjectStore:
    return await _file(root, this_machine())


async def file_quick(root: Path) -> ObjectStore:
    return await _file(root, quick())


async def file_behind_retry(root: Path) -> ObjectStore:
    machine = quick()
    return RetryStore(await _file(root, machine), machine.clock, machine.entropy)


async def file_behind_observe(root: Path) -> ObjectStore:
    machine = quick()
    return ObservedStore(await _file(root, machine), machine.clock)


async def memory_behind_no_faults(_root: Path) -> ObjectStore:
    return FaultStore(MemoryStore(), FaultPlan(), this_machine().clock)


def emptied(site: Served) -> ObjectStore:
    """An operator's store at a site that is empty again."""
    site.empty()
    return site.store("admin")


Make = Callable[[Path], Awaitable[ObjectStore]]
STORES: dict[str, Make] = {
    "memory": memory,
    "file": file,
    "file-behind-retry": file_behind_retry,
    "file-behind-observe": file_behind_observe,
    "memory-behind-no-faults": memory_behind_no_faults,
}

SERVERS = ("s3", "azure")
CLOUDS = (*SERVERS, "google")  # which is the first of these, in other words
# For tests of many objects, where a store syncs each: what to take instead.
IN_BULK: dict[str, Make] = STORES | {"file": file_quick}


# Behind a process that all tests share: the fixture that has it.
PROCESSES = {"site": "site_process"}


@pytest.fixture(scope="session")
def site_process_quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("site"), module=QUICK) as found:
        yield found


@pytest.fixture(params=[*STORES, *PROCESSES, *CLOUDS])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = await _made(STORES, request, tmp_path)
    yield made
    await made.aclose()
    await made.aclose()


@pytest.fixture(params=[*IN_BULK, *PROCESSES, *CLOUDS])
async def bulk_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = await _made(IN_BULK, request, tmp_path, "_quick")
    yield made
    await made.aclose()


@pytest.fixture(params=[*IN_BULK, *PROCESSES, *SERVERS])
async def large_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = await _made(IN_BULK, request, tmp_path, "_quick")
    yield made
    await made.aclose()


@pytest.fixture(params=IN_BULK)
async def local_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = await _made(IN_BULK, request, tmp_path)
    yield made
    await made.aclose()


@pytest.fixture(params=CLOUDS)
async def cloud_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made = await _made({}, request, tmp_path)
    yield made
    await made.aclose()


async def _made(
    stores: dict[str, Make], request: pytest.FixtureRequest, root: Path, which: str = ""
) -> ObjectStore:
    """``which``: of the processes, the one with this name behind its own."""
    if request.param in stores:
        return await stores[request.param](root)
    if request.param in PROCESSES:
        return emptied(request.getfixturevalue(f"{PROCESSES[request.param]}{which}"))
    cloud: Cloud = request.getfixturevalue(request.param)
    return open_store(cloud.url(), this_machine())
