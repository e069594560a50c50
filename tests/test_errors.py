"""The whole error tree obeys the table of exit codes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import stages
from stages import errors
from stages.errors import EXIT_CODES, BackstayError, leaves


def _tree(kind: type[BackstayError]) -> Iterator[type[BackstayError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


def _all() -> list[type[BackstayError]]:
    for module in pkgutil.walk_packages(stages.__path__, "stages."):
        importlib.import_module(module.name)
    return [kind for kind in dict.fromkeys(_tree(BackstayError)) if kind.__module__ != __name__]


@pytest.mark.parametrize("kind", _all(), ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_table_and_says_what_it_is(kind: type[BackstayError]) -> None:
    assert kind.exit_code in EXIT_CODES
    assert kind.exit_code not in (0, 130)
    assert isinstance(kind.recoverable, bool)
    assert kind.__doc__ and "__doc__" in vars(kind)


@pytest.mark.parametrize("kind", _all(), ids=lambda kind: kind.__name__)
def test_str_is_operation_subject_message(kind: type[BackstayError]) -> None:
    full = kind("it broke", operation="put", subject="log/1", hint="mend it")
    assert str(full) == "put: log/1: it broke"
    assert (full.message, full.hint) == ("it broke", "mend it")
    assert str(kind("it broke", subject="log/1")) == "log/1: it broke"
    assert str(kind("it broke", operation="put")) == "put: it broke"
    assert str(kind("it broke")) == "it broke"


def test_the_tree_is_found() -> None:
    assert {errors.OutcomeUnknown, errors.DamagedObject, errors.Fenced} <= set(_all())
    assert {kind.exit_code for kind in _all()} | {0, 130} == set(EXIT_CODES)


def test_only_what_heals_by_itself_is_recoverable() -> None:
    healing = {kind.__name__ for kind in _all() if kind.recoverable}
    assert healing >= {"StoreUnreachable", "OutcomeUnknown", "NoSpace"}
    assert not healing & {"StoreDenied", "Fenced", "DamagedObject", "ConfigError", "StoreError"}


def test_a_code_outside_the_table_would_be_noticed() -> None:
    class Stray(BackstayError):
        """Not documented."""

        exit_code = 99

    assert Stray in set(_tree(BackstayError))
    assert Stray.exit_code not in EXIT_CODES


def test_leaves_flattens_groups_in_order() -> None:
    first, second, third = ValueError("1"), KeyError("2"), OSError("3")
    group = BaseExceptionGroup("", [first, ExceptionGroup("", [second]), third])
    assert leaves(group) == [first, second, third]
    assert leaves(first) == [first]
