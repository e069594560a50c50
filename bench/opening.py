"""Measuring processes for recovery: what it takes to open a point, and to read from it.

``python -m bench.opening read|window|checkpoint MADE [--delay SECONDS] [--seed N]`` prints one
line of JSON. Seconds count from the first call to the vault; whoever starts this process times the
whole of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from bench.made import DISK, MACHINE, Made, content
from stages.model import BLOCK
from stages.nbd.device import FileRange
from stages.ports import Buffer, Machine
from stages.recover.device import PointDevice
from stages.recover.extract import Laid
from stages.recover.opened import Group, open_vault
from stages.recover.pointmap import PointMap
from stages.recover.points import choose
from stages.recover.sweep import Sweep
from stages.store.file import FileStore
from stages.store.port import PAGE, ObjectInfo, ObjectStore, Put
from stages.system import this_machine
from stages.vault.keyfile import decode_private


class FarStore:
    """A store ``delay`` seconds away: that is added to each get, info and page. Counts them."""

    def __init__(self, inner: ObjectStore, delay: float):
        self.url = inner.url
        self._inner = inner
        self._delay = delay
        self.calls = 0

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Not delayed."""
        return await self._inner.put(key, parts)

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Delayed."""
        await self._travel()
        return await self._inner.get(key, offset, length)

    async def info(self, key: str) -> ObjectInfo | None:
        """Delayed."""
        await self._travel()
        return await self._inner.info(key)

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Delayed."""
        await self._travel()
        return await self._inner.page(prefix, after, limit)

    async def delete(self, key: str) -> bool:
        """Not delayed."""
        return await self._inner.delete(key)

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()

    async def _travel(self) -> None:
        self.calls += 1
        if self._delay:
            await trio.sleep(self._delay)


class Watch:
    """Seconds since it was made, step by step."""

    def __init__(self, ports: Machine):
        self._clock = ports.clock
        self._started = self._last = ports.clock.monotonic()
        self.steps: dict[str, float] = {}

    def step(self, name: str) -> None:
        """What was done since the last step is ``name``."""
        now = self._clock.monotonic()
        self.steps[name] = now - self._last
        self._last = now

    @property
    def seconds(self) -> float:
        """Up to the last step."""
        return self._last - self._started


async def read(made: Made, delay: float, seed: int) -> dict[str, object]:
    """Open the newest point and read one block of it."""
    ports = this_machine()
    store = FarStore(FileStore(made.vault, ports), delay)
    watch = Watch(ports)
    group = await _group(made, store, ports)
    watch.step("find")
    choice = await choose(group, MACHINE, None)
    watch.step("choose")
    point = await PointMap.build(group, ports.files, choice.point.seq)
    watch.step("map")
    device = PointDevice(point, point.disk(DISK), ports.offload)
    block, number = made.probes[seed % len(made.probes)]
    parts = await device.read(block * BLOCK, BLOCK)
    found = b"".join(part for part in parts if not isinstance(part, FileRange))
    watch.step("read")
    point.close()
    return {
        "seconds": watch.seconds,
        "calls": store.calls,
        "right": found == content(number) and choice.point.seq == made.tail,
        **watch.steps,
    }


async def window(made: Made, _delay: float, _seed: int) -> dict[str, object]:
    """Open every frame of the fullest stretch of the disk, as verify and restore do."""
    ports = this_machine()
    watch = Watch(ports)
    group = await _group(made, FileStore(made.vault, ports), ports)
    point = await PointMap.build(group, ports.files, made.tail)
    watch.step("map")
    sweep = Sweep(point, ports)
    found = await sweep.locate(point.disk(DISK), made.window)
    blocks = 0

    def count(_room: memoryview, laid: Sequence[Laid]) -> None:
        nonlocal blocks
        blocks += sum(len(need.blocks) for _, _, need in laid)

    await sweep.extract(found, count)
    watch.step("window")
    point.close()
    mapped = int((found.locations > 1).sum())
    right = not sweep.damage and blocks == mapped > 0
    return {"seconds": watch.seconds, "blocks": blocks, "right": right, **watch.steps}


async def checkpoint(made: Made, _delay: float, _seed: int) -> dict[str, object]:
    """Take up the writer's record and write a checkpoint of all of it."""
    from stages.crypto.sign import Signer
    from stages.ship.checkpointer import Checkpointer
    from stages.ship.ledger import Ledger
    from stages.ship.session import LogSession, Writer
    from stages.vault.charter import load
    from stages.vault.sealing import Scope

    ports = this_machine()
    store = FileStore(made.vault, ports)
    watch = Watch(ports)
    charter = await load(store, None)
    scope = Scope(charter.vault, bytes.fromhex(made.group), charter.cipher)
    writer = Writer(store, scope, charter, Signer(bytes.fromhex(made.signer)), ports)
    ledger = Ledger(ports, made.state, scope)
    ledger.recover()
    session = LogSession(writer, ledger)
    await session.open()
    watch.step("open")
    await Checkpointer(session).write()
    watch.step("checkpoint")
    right = ledger.tail.checkpoint == made.tail
    ledger.close()
    return {"seconds": watch.seconds, "right": right, **watch.steps}


async def _group(made: Made, store: ObjectStore, ports: Machine) -> Group:
    data = ports.files.read(made.key, 1 << 20)
    vault = await open_vault(store, decode_private(data, None, made.key))
    return await vault.find(MACHINE)


def main(argv: list[str]) -> None:
    """Run one of them."""
    kind, path = argv[0], Path(argv[1])
    delay = float(argv[argv.index("--delay") + 1]) if "--delay" in argv else 0.0
    seed = int(argv[argv.index("--seed") + 1]) if "--seed" in argv else 0
    work = {"read": read, "window": window, "checkpoint": checkpoint}[kind]
    print(json.dumps(trio.run(partial(work, Made.load(path), delay, seed))))


if __name__ == "__main__":
    main(sys.argv[1:])
