"""``backstay`` in a process of its own that stops at a given place and waits to be ended.

``python -m tests.faults.held MODULE:CLASS.METHOD NUMBER COMMAND ...`` says "held" before the
NUMBERth call of the method and goes no further.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from typing import Any
from unittest.mock import patch

import trio

from pipeline.cli.main import main


def hold(place: str, number: int, argv: list[str]) -> None:
    """Run a command that will not get past a call."""
    module, _, path = place.partition(":")
    kind, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), kind)
    original = getattr(owner, method)
    calls = itertools.count(1)

    async def held(*args: Any, **more: Any) -> Any:
        if next(calls) == number:
            sys.stdout.write("held\n")
            sys.stdout.flush()
            await trio.sleep_forever()
        return await original(*args, **more)

    with patch.object(owner, method, held):
        main(argv)


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
