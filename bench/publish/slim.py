"""A result file that is small enough to keep beside the source, and tells nothing private.

Series are left out, numbers have six digits, folders of the machine have no names; all that a table
shows is the same. Pure, but for asking this machine what its names are.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.record import Result, as_text
from bench.results import Entry, Outcome, Sample

_PATH = re.compile(r"(?<![\w./:-])/(?:[^\s/:;,'\"()]+/)+([^\s/:;,'\"()]*)")
_FOLDERS = ("--out", "--work", "--cache", "--from")  # options whose value is a path
_DIGITS = 6
_SHORT = 4  # letters: shorter names of machines are words too


class Private(Exception):
    """It names what belongs to one machine; the message says what."""


def slim(result: Result) -> Result:
    """Without what only this machine knows and without series. Raises ``Private``."""
    found = replace(
        result,
        command=_words(result.command),
        scenarios=tuple(map(_outcome, result.scenarios)),
    )
    text = as_text(found)
    for name in _own_names():
        if name in text:
            raise Private(f"it names {name!r}")
    return found


def _own_names() -> Iterable[str]:
    """What must not be told: this machine's name, and where things lie on it."""
    node = platform.node()
    names = {str(Path.home()), str(Path.cwd()), os.path.realpath(".")}
    if len(node) >= _SHORT:
        names.add(node)
    return sorted(name for name in names if name != "/")


def _words(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command without folders, which change no figure."""
    found: list[str] = []
    words = iter(command)
    for word in words:
        if word in _FOLDERS:
            next(words, None)
        elif not word.startswith(tuple(f"{option}=" for option in _FOLDERS)):
            found.append(without_paths(word))
    return tuple(found)


def without_paths(text: str) -> str:
    """Absolute paths end up as their last part."""
    return _PATH.sub(lambda match: match[1] or "…", text)


def _outcome(outcome: Outcome) -> Outcome:
    return replace(
        outcome,
        entries=tuple(_entry(entry) for entry in outcome.entries),
        notes=tuple(map(without_paths, outcome.notes)),
        wrong=tuple(map(without_paths, outcome.wrong)),
        failed=tuple(map(without_paths, outcome.failed)),
        goals=tuple(
            replace(goal, measured=_rounded(goal.measured), target=_rounded(goal.target))
            for goal in outcome.goals
        ),
    )


def _entry(entry: Entry) -> Entry:
    return replace(entry, samples=tuple(map(_sample, entry.samples)))


def _sample(sample: Sample) -> Sample:
    rounded: Callable[[Any], Any] = _rounded
    return replace(
        sample,
        seconds=rounded(sample.seconds),
        durable=rounded(sample.durable),
        inner=rounded(sample.inner),
        cpu=rounded(sample.cpu),
        figures={name: rounded(value) for name, value in sample.figures.items()},
        stages={
            stage: {kind: rounded(share) for kind, share in kinds.items()}
            for stage, kinds in sample.stages.items()
        },
        series={},
    )


def _rounded(value: float | None) -> Any:
    return value if value is None else float(f"{value:.{_DIGITS}g}")
