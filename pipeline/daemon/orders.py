"""What the supervisor tells the delivery process: lines of JSON on its standard input.

The first line says how to begin; then one line for each machine that is to be paused, resumed or
tried now, and ``drain`` at the end.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

import trio

DRAIN = b"drain\n"
MAX_LINE = 1 << 20


class Order(StrEnum):
    """What one machine is told."""

    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Begin:
    """``paused``: machines that are left alone. ``at_once``: no wait of an earlier life goes on,
    each is tried once."""

    paused: frozenset[str] = frozenset()
    at_once: bool = False


def encode_begin(paused: Collection[str], *, at_once: bool) -> bytes:
    """The first line."""
    return json.dumps({"paused": sorted(paused), "at_once": at_once}).encode() + b"\n"


def decode_begin(line: bytes) -> Begin:
    """Undo ``encode_begin``; what is none begins everything."""
    try:
        found = json.loads(line)
    except ValueError:
        return Begin()
    match found:
        case {"paused": list(paused), "at_once": bool(at_once)}:
            return Begin(frozenset(map(str, paused)), at_once)
    return Begin()


def encode(machine: str, order: Order) -> bytes:
    """One line."""
    return json.dumps({"machine": machine, "do": order.value}).encode() + b"\n"


def decode(line: bytes) -> tuple[str, Order] | None:
    """Undo ``encode``; None for what is no order."""
    try:
        found = json.loads(line)
        return str(found["machine"]), Order(found["do"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass
class Orders:
    """What one machine has been told, and a way to hear more of it."""

    draining: trio.Event
    _paused: bool = False
    retry: bool = False  # now, whatever it waits for
    _told: trio.Event = field(default_factory=trio.Event)

    def take(self, order: Order) -> None:
        """Another one."""
        if order is Order.RETRY:
            self.retry = True
        else:
            self._paused = order is Order.PAUSE
        self._told.set()
        self._told = trio.Event()

    def paused(self) -> bool:
        """Is it to be left alone?"""
        return self._paused

    async def changed(self) -> None:
        """Return when there is another one, or all is drained."""
        told = self._told
        async with trio.open_nursery() as nursery:

            async def until_drain() -> None:
                await self.draining.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_drain)
            await told.wait()
            nursery.cancel_scope.cancel()

    async def until_paused(self) -> None:
        """Return when it is to be left alone."""
        while not self._paused:
            told = self._told
            await told.wait()
