"""A store of a cloud's server, and how everything that it can be asked ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from bench.servers.cloud import Cloud
from stages.errors import (
    BackstayError,
)
from stages.store.open import open_store
from stages.store.port import ObjectStore
from stages.system import this_machine
from tests.cloud.proxy import Proxy

MACHINE = this_machine()
QUICK = "400ms"  # until an answer that never comes is given up


def opened(
    cloud: Cloud, proxy: Proxy | None = None, prefix: str = "", **options: str
) -> ObjectStore:
    """A store, through the proxy if there is one."""
    there = cloud if proxy is None else replace(cloud, port=proxy.port)
    return open_store(there.url(prefix, **options), MACHINE)


async def all_five(store: ObjectStore) -> dict[str, BackstayError | None]:
    """How each operation ends."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: store.put("k", [b"x"]),
        "get": lambda: store.get("k", 0, 10),
        "info": lambda: store.info("k"),
        "page": lambda: store.page(""),
        "delete": lambda: store.delete("k"),
    }
    found: dict[str, BackstayError | None] = {}
    for name, call in calls.items():
        try:
            await call()
            found[name] = None
        except BackstayError as error:
            found[name] = error
    return found


def no_secret_in(error: BackstayError, cloud: Cloud) -> None:
    """Nothing of a credential file is told."""
    told = f"{error} {error.hint}"
    for file in cloud.folder.iterdir():
        for line in file.read_text().splitlines():
            secret = line.partition("=")[2].strip()
            assert not secret or secret not in told
    assert "ignature=" not in told
    assert "sig=" not in told
