"""Planted bugs: each rule left out must be found, or the stories prove nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from stages.capture.group.gap import Gap
from stages.capture.live.windows import Windows
from tests.simulation.story import Story

SEEDS = 60


@contextmanager
def no_marks() -> Iterator[None]:
    """R8: a scan does not hear of writes."""
    with mock.patch.object(Windows, "mark", lambda *_: None):
        yield


@contextmanager
def no_pending_while_tracking() -> Iterator[None]:
    """R9: what is written while the journal is full is forgotten."""
    with mock.patch.object(Gap, "todo", lambda *_: []):
        yield


@pytest.mark.parametrize("bug", [no_marks, no_pending_while_tracking])
def test_a_planted_bug_is_found(bug: Callable[[], Any]) -> None:
    with bug():
        for seed in range(SEEDS):
            try:
                Story(seed).run()
            except (AssertionError, BaseExceptionGroup):
                return
    raise AssertionError(f"{bug.__name__} was not found in {SEEDS} stories")
