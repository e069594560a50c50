"""The tests' own ``Control`` obeys the protocol: what is tested against it means something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from pipeline.control.model import Operation
from tests.api.conformance import CHECKS, Subject
from tests.api.operator import Operator


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_operator(check: Callable[[Subject], Awaitable[None]], tmp_path: Path) -> None:
    control = Operator()
    (tmp_path / "http").mkdir(mode=0o700)

    async def finish(number: int) -> None:
        await trio.lowlevel.checkpoint()
        control.finish(number)

    subject = Subject(
        control,
        control.refused,
        tmp_path,
        "web1",
        Operation.RESYNC,
        Operation.FAILBACK,
        Operation.UNPROTECT,
        finish,
        {},
    )
    await check(subject)
