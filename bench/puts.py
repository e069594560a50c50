"""Objects of a vault, moved by obstore alone: what a store takes without this program before it.

``python -m bench.puts take|put|check URL FOLDER [--in-flight N]`` copies all objects of URL into
FOLDER, puts those of FOLDER below URL, or compares the two. Prints one line of JSON; seconds count
from the first request.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import trio

from stages.store.cloud.clients import Client, Clients
from stages.store.cloud.settings import Settings
from stages.store.open import open_store
from stages.store.port import walk
from stages.system import this_machine

MOST = 1_000_000  # objects


async def take(url: str, folder: Path) -> dict[str, object]:
    """Copy all objects."""
    store = open_store(url, this_machine())
    objects = size = 0
    try:
        async for info in walk(store, "", most=MOST):
            path = folder / info.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await store.get(info.key))
            objects, size = objects + 1, size + info.size
    finally:
        await store.aclose()
    return {"objects": objects, "bytes": size, "right": objects > 0}


def put(url: str, folder: Path, in_flight: int) -> dict[str, object]:
    """Create all objects, ``in_flight`` at a time, by the client that the pipeline has."""
    settings = Settings.of(url)
    clients = Clients(settings, this_machine())
    loaded = [(key, (folder / key).read_bytes()) for key in keys(folder)]
    base = f"{settings.prefix}/" if settings.prefix else ""
    for size in {len(data) for _, data in loaded}:
        clients.of(size)

    def one(item: tuple[str, bytes]) -> int:
        key, data = item
        client: Client = clients.of(len(data))
        obstore.put(client, f"{base}{key}", data, mode="create", use_multipart=False)
        return len(data)

    started = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as pool:
        total = sum(pool.map(one, loaded))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "objects": len(loaded), "bytes": total, "right": bool(loaded)}


async def check(url: str, folder: Path) -> dict[str, object]:
    """Whether the same objects with the same bytes are there."""
    store = open_store(url, this_machine())
    try:
        there = [info.key async for info in walk(store, "", most=MOST)]
        right = sorted(there) == keys(folder) and bool(there)
        for key in there if right else ():
            right = right and await store.get(key) == (folder / key).read_bytes()
    finally:
        await store.aclose()
    return {"objects": len(there), "right": right}


def keys(folder: Path) -> list[str]:
    """The objects in a folder, in order."""
    found = (one for one in folder.rglob("*") if one.is_file())
    return sorted(str(one.relative_to(folder)) for one in found if ".tmp" not in one.parts)


def main(arguments: list[str]) -> None:
    """Run one of the three."""
    kind, url, folder = arguments[0], arguments[1], Path(arguments[2])
    if kind == "put":
        found = put(url, folder, int(arguments[arguments.index("--in-flight") + 1]))
    else:
        found = trio.run({"take": take, "check": check}[kind], url, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
