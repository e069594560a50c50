"""What goes wrong with the vault: lost requests and answers, late and doubled puts, delays."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stages.errors import OutcomeUnknown, StoreUnreachable
from stages.ports import Buffer
from stages.store.faults import Fault, Operation, Rule
from stages.store.port import ObjectStore, Put
from stages.store.through import Through


def rule_of(dice: random.Random, rate: float) -> Rule:
    """One call in ``1 / rate`` fails or takes its time."""

    def rule(operation: Operation) -> Fault | None:
        if dice.random() >= rate:
            return None
        put = operation.name == "put"
        kind = dice.choice(("request", "delay", "answer", "late", "answer", "late"))
        if kind == "delay":
            return Fault(delay=dice.choice((0.05, 2.0, 25.0)))
        if kind == "request" or not put:
            return Fault(before=StoreUnreachable)
        if kind == "answer":
            return Fault(after=OutcomeUnknown)
        return Fault(late=dice.choice((0.01, 1.0, 15.0, 200.0)))

    return rule


class Twice(Through):
    """A way to the store on which a put may arrive twice; the second answer is the one heard."""

    def __init__(self, inner: ObjectStore, dice: random.Random, rate: float):
        super().__init__(inner)
        self._dice = dice
        self._rate = rate

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        found = await self._inner.put(key, parts)
        if self._dice.random() < self._rate:
            return await self._inner.put(key, parts)
        return found
