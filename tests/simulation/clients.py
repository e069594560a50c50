"""Clients in a story: guests that write, and people who mark."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import trio
import trio.testing

from stages.capture.splitter.handler import SplitHandler
from stages.errors import BackstayError
from tests.simulation.guests import (
    PRESENT,
    Exchange,
    Guest,
    Wrong,
)
from tests.simulation.scene import LONG, Scene


class Clients(Scene):
    """What runs beside the lives of the processes."""

    async def _guest(self, handler: SplitHandler, stopped: trio.Event) -> None:
        dice = random.Random(self.dice.getrandbits(30))
        guest = Guest(self.knobs, dice)
        while not stopped.is_set() and self.quota > 0:
            await trio.sleep(dice.choice(self.knobs.pace))
            if self.frozen:
                await self.thawed.wait()
                continue
            batch, changes, begin = guest.batch(handler.disk.size, self.quota)
            if not batch.requests or stopped.is_set():
                batch.buffer.release()
                continue
            self.quota -= changes
            self.made += changes
            exchange = Exchange(handler.disk.name, batch.requests, self)
            self.exchanges.add(exchange)
            PRESENT.set(exchange)
            leaves_early = not self.quiet and dice.random() < self.knobs.leave
            patience = dice.choice((0, 0.0005, 0.004, 0.03)) if leaves_early else LONG
            try:
                with trio.move_on_after(patience):
                    await exchange.carried_out(handler, batch, begin)
                    await exchange.over.wait()
            finally:
                exchange.gone = True
                batch.buffer.release()
                self.exchanges.discard(exchange)
            self._after(changes)

    def _after(self, changes: int) -> None:
        """Some more writes were made: what is planned for now?"""
        self.progress += changes
        while self.triggers and self.triggers[0][0] <= self.progress:
            self.triggers.pop(0)[1]()

    async def _mark_now_and_then(self) -> None:
        dice = random.Random(self.dice.getrandbits(30))
        if dice.random() >= self.knobs.marks:
            return
        while True:
            await trio.sleep(dice.choice((0.5, 3, 20)))
            await self._mark(dice)

    async def _order_now_and_then(self) -> None:
        dice = random.Random(self.dice.getrandbits(30))
        if dice.random() >= self.knobs.orders:
            return
        while True:
            await trio.sleep(dice.choice((0.1, 0.5, 3, 20)))
            match dice.randrange(4):
                case 0:
                    with suppress(BackstayError):
                        await self.intake.resync("ordered")
                case 1:
                    self.intake.arrange(rest="ordered", held=dice.random() < 0.3)
                case _:
                    self.intake.arrange(rest="", held=dice.random() < 0.3)

    async def _mark(self, dice: random.Random) -> None:
        was: dict[str, bytes] = {}
        holds = dice.random() < 0.7

        async def freeze() -> None:
            self.frozen += 1
            while any(not exchange.over.is_set() for exchange in self.exchanges):  # noqa: ASYNC110
                await trio.sleep(0.01)
            was.update(self._sources())

        async def thaw() -> bool:
            if not holds:
                self._thaw()
                await trio.sleep(dice.choice((0.01, 1)))
                return False
            self._thaw()
            return True

        hooks: tuple[Callable[[], Awaitable[Any]] | None, ...] = (freeze, thaw)
        if dice.random() < 0.3:
            hooks = (None, None)
        point = await self.intake.mark("m", *cast(Any, hooks))
        if not point.seq:
            return
        if point.grade == "app" and (not holds or hooks[0] is None):
            raise Wrong("R20: a mark whose freeze did not hold is an application's")
        if hooks[0] is not None:
            self.checker.frozen[point.seq] = was
