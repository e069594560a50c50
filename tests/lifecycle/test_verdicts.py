"""Every error class has a verdict, and the classes agree with it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline
import stages
from pipeline.config.service import Retry
from pipeline.lifecycle.verdicts import _HINTS, VERDICTS, Cause, cause_of, hint_of
from pipeline.retry import LAST, MAX_JITTER, PROBE_SECONDS, STEPS, Ladder, Steps, jittered
from stages import errors
from stages.errors import BackstayError


def descendants(kind: type[BackstayError]) -> Iterator[type[BackstayError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_no_class_is_missing() -> None:
    known = {
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, BackstayError)
    }
    assert set(VERDICTS) == known
    for kind, cause in VERDICTS.items():
        assert cause.recoverable == kind.recoverable, kind


def test_errors_of_other_modules_agree_too() -> None:
    for package in (stages, pipeline):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for kind in descendants(BackstayError):
        assert cause_of(kind("no")).recoverable == kind.recoverable, kind


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_used_and_has_a_hint(cause: Cause) -> None:
    kinds = [kind for kind, found in VERDICTS.items() if found is cause]
    assert kinds
    assert hint_of(kinds[0]("no")) == _HINTS[cause]
    assert hint_of(kinds[0]("no", hint="do this")) == "do this"


def test_what_the_reference_says() -> None:
    for recoverable in (errors.StoreUnreachable, errors.NoSpace, errors.OutOfMemory):
        assert cause_of(recoverable("no")).recoverable
    for fatal in (
        errors.WrongKey,
        errors.NotAdmitted,
        errors.StoreDenied,
        errors.NotAVault,
        errors.BrokenChain,
        errors.Fenced,
        errors.NotFound,
    ):
        assert not cause_of(fatal("no")).recoverable


def test_the_configuration_has_the_same_defaults() -> None:
    default = Retry()
    assert (default.steps, default.then, default.probe) == (STEPS, LAST, PROBE_SECONDS)


def test_steps() -> None:
    steps = Steps((1.0, 2.0), 3.0)
    assert [steps.after(attempt) for attempt in range(5)] == [0.0, 1.0, 2.0, 3.0, 3.0]


@given(wait=st.floats(0, 1e6), token=st.binary(min_size=1, max_size=8))
def test_jitter_only_adds(wait: float, token: bytes) -> None:
    assert wait <= jittered(wait, token) <= wait + MAX_JITTER


@given(
    wait=st.floats(0, 1e5),
    began=st.integers(0, 1 << 52),
    now=st.integers(0, 1 << 52),
)
def test_what_is_left_is_never_more_than_the_step(wait: float, began: int, now: int) -> None:
    ladder = Ladder().failed(wait, began, {"error": "NoSpace"})
    assert 0.0 <= ladder.left(now) <= wait
    assert ladder.left(began) == pytest.approx(wait, abs=1e-6)
    assert ladder.trying().left(now) == 0.0
    assert ladder.failed(None, began, {}).left(now) == 0.0
    assert Ladder.of(ladder.as_fields()) == ladder


@pytest.mark.parametrize("fields", [{}, {"attempt": -1}, {"attempt": "1"}, {"attempt": None}])
def test_a_note_that_is_none(fields: dict[str, object]) -> None:
    assert Ladder.of(fields) == Ladder()
