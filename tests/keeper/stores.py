"""Stores that something happens to while a keeper or a reader is at work."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from stages.ports import Buffer, Machine
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.store.file import FileStore
from stages.store.memory import MemoryStore
from stages.store.port import PAGE, ObjectInfo, ObjectStore, Put
from stages.store.through import Through
from tests.keeper.world import World
from tests.vault.support import (
    SetClock,
)


class HoldingStore(FaultStore):
    """Somebody sets a hold the moment before a floor is put."""

    def __init__(self, inner: ObjectStore, world: World, seq: int):
        super().__init__(inner, FaultPlan(), world.clock)
        self._world = world
        self._seq = seq
        self.done = False

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        if "/floors/" in key and not self.done:
            self.done = True
            await self._world.hold(self._seq)
        return await super().put(key, parts)


class DatedFiles(FileStore):
    """A vault in real files, whose times are those of a clock that is set."""

    def __init__(self, root: str, machine: Machine):
        super().__init__(root, machine)
        self._clock = machine.clock

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        done = await super().put(key, parts)
        self.date(key, self._clock.wall_us() / 1e6)
        return done

    def date(self, key: str, seconds: float) -> None:
        os.utime(self._path(key), ns=(round(seconds * 1e9), round(seconds * 1e9)))


async def in_files(world: World, root: str) -> World:
    """The same world, its vault copied to files below ``root``."""
    store = DatedFiles(root, world.machine)
    await store.create_root()
    for key, each in world.store._objects.items():
        await FileStore.put(store, key, [each.data])
        store.date(key, each.modified)
    return replace(world, store=store)


class Dated(Through):
    """A store far away, whose times are those of a clock that is set."""

    def __init__(self, inner: ObjectStore, clock: SetClock):
        super().__init__(inner)
        self._clock = clock
        self.dates: dict[str, float] = {}

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        done = await super().put(key, parts)
        if done is Put.CREATED:
            self.dates[key] = self._clock.wall_us() / 1e6
        return done

    async def info(self, key: str) -> ObjectInfo | None:
        found = await super().info(key)
        return found and replace(found, modified=self.dates[key])

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        found = await super().page(prefix, after, limit)
        return [replace(each, modified=self.dates[each.key]) for each in found]


async def in_store(world: World, store: ObjectStore) -> World:
    """The same world, its vault copied to an empty store."""
    dated = Dated(store, world.clock)
    for key, each in world.store._objects.items():
        await store.put(key, [each.data])
        dated.dates[key] = each.modified
    return replace(world, store=dated)


class Changing(MemoryStore):
    """A vault that only others change: ``states`` are what it holds, one after the other.

    ``step`` hears the number of an operation before it and says how many states are passed over.
    """

    def __init__(self, states: Sequence[dict[str, Any]], step: Callable[[int], int]):
        super().__init__()
        self._states = states
        self._step = step
        self._at = self.count = 0
        self._objects = states[0]
        self._keys = sorted(states[0])

    def _next(self) -> None:
        moved = min(self._at + self._step(self.count), len(self._states) - 1)
        self.count += 1
        if moved != self._at:
            self._at, self._objects = moved, self._states[moved]
            self._keys = sorted(self._objects)

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._next()
        return await super().get(key, offset, length)

    async def info(self, key: str) -> ObjectInfo | None:
        self._next()
        return await super().info(key)

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        self._next()
        return await super().page(prefix, after, limit)


class Recording(MemoryStore):
    """``states``: what it held at first and after every change."""

    def __init__(self, other: MemoryStore, clock: SetClock):
        super().__init__(clock=clock)
        self._objects, self._keys = dict(other._objects), list(other._keys)
        self._held_bytes = other._held_bytes
        self.states = [dict(self._objects)]

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        done = await super().put(key, parts)
        self.states.append(dict(self._objects))
        return done

    async def delete(self, key: str) -> bool:
        done = await super().delete(key)
        self.states.append(dict(self._objects))
        return done


class Meanwhile(FaultStore):
    """Something happens the moment before operation ``at``, from 0. ``begun`` counts them."""

    def __init__(
        self, inner: ObjectStore, world: World, at: int | None, act: Callable[[], Awaitable[object]]
    ):
        super().__init__(inner, FaultPlan(self._look), world.clock)
        self._at = at
        self._act = act
        self.begun = 0

    def _look(self, operation: Operation) -> None:
        self.begun = operation.number + 1

    async def _begin(self, name: str, key: str) -> tuple[Operation, Fault]:
        if self._at == self._count:
            self._at = None
            await self._act()
        return await super()._begin(name, key)
