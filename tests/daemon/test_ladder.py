"""A vault that is away for hours, in virtual time: when it is tried again."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from unittest import mock

import trio
import trio.testing

from pipeline.daemon.delivery_main import _Machine
from pipeline.retry import PROBE_SECONDS
from stages import ports
from stages.errors import StoreUnreachable
from tests.ports.watched import machine
from tests.whole.memfiles import MemFiles


class VirtualClock:
    """trio's."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return int(trio.current_time() * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def test_the_steps_and_a_vault_that_answers_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    found = machine(MemFiles())
    simulated = ports.Machine(VirtualClock(), found.offload, found.entropy, found.files)
    nothing: Any = None
    one = _Machine(simulated, nothing, "m", nothing, trio.Event())
    began = trio.current_time()
    back_at = 5.5 * 3600
    tries: list[float] = []

    async def life(_: _Machine) -> None:
        tries.append(trio.current_time() - began)
        if tries[-1] < back_at:
            raise StoreUnreachable("away")
        await trio.sleep_forever()

    async def probe(_: _Machine) -> bool:
        return trio.current_time() - began >= back_at

    with mock.patch.object(_Machine, "_life", life), mock.patch.object(_Machine, "_probe", probe):
        with trio.move_on_after(10 * 3600):
            await one.run()
    away = [late - early for early, late in pairwise(tries[:-1])]
    steps = [60, 120, 240, 480, 600]
    assert [round(wait) for wait in away] == steps + [1800] * (len(away) - len(steps))
    assert len(away) > len(steps) + 5
    assert back_at <= tries[-1] <= back_at + 3 * PROBE_SECONDS
