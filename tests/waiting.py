"""Waiting for what nobody tells us of: another process's work, looked for again and again."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import IO, TypeVar

PATIENCE = 120.0  # seconds: never reached unless something is wrong

T = TypeVar("T")


def until(
    what: str | Callable[[], object],
    look: Callable[[], T | None],
    *,
    seconds: float = PATIENCE,
    pause: float = 0.05,
) -> T:
    """What ``look`` returns, once that is true. ``what`` is said if it does not come: a text, or
    what makes one then."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what() if callable(what) else what}")
        select.select([], [], [], pause)  # leave the processor to it
    return found


def heard(stream: IO[str], word: str) -> str:
    """The next line with that word in it; whoever speaks may end instead, which is an error."""
    for line in iter(stream.readline, ""):
        if word in line:
            return line
    raise AssertionError(f"it ended before it said {word!r}")
