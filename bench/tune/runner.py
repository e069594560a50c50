"""Runs the pairs that the planner asks for: fresh vaults, the image in the page cache, every copy
brought back and compared. No machine and no vault of the configuration is touched."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.context import Context, Gathered, brought_back, timed
from bench.measure import CommandFailed, Run
from bench.subjects import Backstay, BackstayCopy
from bench.tune.plan import Answer, Asking, Measure, Pair, Verdict
from bench.tune.space import Setting, sections


class WrongCopy(Exception):
    """A copy came back with other bytes: nothing that was measured counts."""


Once = Callable[[Setting], Measure]


@dataclass
class Budget:
    """``seconds`` in all, None: any time; pairs of a comparison on the way (``row``) and of the
    ``final`` one, for which time is kept."""

    seconds: float | None
    final: int
    row: int = 1
    clock: Callable[[], float] = time.monotonic
    _began: float = 0.0
    _pairs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def pair_took(self, seconds: float) -> None:
        """To know how long the last ones will take."""
        self._pairs.append(seconds)

    def late(self) -> bool:
        """No time for another pair."""
        return self.seconds is not None and self._left(self.seconds) < self.mean

    def hurry(self) -> bool:
        """No time for another row before the final pairs."""
        if self.seconds is None or not self._pairs:
            return False
        return self._left(self.seconds) < self.mean * (self.final + self.row)

    @property
    def mean(self) -> float:
        """Seconds of a pair so far; 0 before the first."""
        return sum(self._pairs) / len(self._pairs) if self._pairs else 0.0

    def _left(self, seconds: float) -> float:
        return seconds - (self.clock() - self._began)


def drive(
    asking: Asking,
    once: Once,
    budget: Budget,
    say: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Answer until the verdict; which of a pair is first alternates. A candidate whose command
    fails is out. Raises ``WrongCopy``, and ``CommandFailed`` of what is already in use."""
    try:
        pair = next(asking)
        while True:
            began = budget.clock()
            answer = _answer(pair, once)
            budget.pair_took(budget.clock() - began)
            if answer.candidate:
                ratio = answer.incumbent.seconds / answer.candidate.seconds
                say(f"{pair.what}, pair {pair.number + 1}: {ratio:.3f} times as fast")
            pair = asking.send(replace(answer, hurry=budget.hurry(), late=budget.late()))
    except StopIteration as done:
        verdict: Verdict = done.value
        return verdict


def _answer(pair: Pair, once: Once) -> Answer:
    if pair.number % 2:
        theirs = once(pair.incumbent)
        return Answer(_or_none(once, pair.candidate), theirs)
    mine = _or_none(once, pair.candidate)
    return Answer(mine, once(pair.incumbent))


def _or_none(once: Once, setting: Setting) -> Measure | None:
    try:
        return once(setting)
    except CommandFailed:
        return None


class Runner:
    """Initial replication of the context's image by this program, under any setting.

    ``fixed``: sections of the pipeline that are not tuned. Key and vault are made once and copied
    for each run, so that a run takes little longer than what is timed.
    """

    def __init__(
        self,
        context: Context,
        fixed: Mapping[str, Mapping[str, Any]],
        subject: Backstay | None = None,
    ):
        self._context = context
        self._fixed = fixed
        self._subject = subject or Backstay()
        self._blank: Path | None = None
        self.runs = 0

    def prepare(self) -> None:
        """Make image, key and vault, which is no part of a run. Raises ``CommandFailed`` and
        ``InputFailed``."""
        self._make_blank(self._context.work / "tune", self._context.image())

    def once(self, setting: Setting) -> Measure:
        """One run, verified. Raises ``CommandFailed`` or ``WrongCopy``."""
        context = self._context
        copy = self._fresh(setting)
        done = timed(copy.backup(), copy.folder, copy.image)
        found = Measure(_seconds(copy, done), done.peak, copy.stored())
        self.runs += 1
        if not brought_back(context, copy, Gathered(), "tune"):
            raise WrongCopy(f"a copy made with {dict(setting)} came back with other bytes")
        shutil.rmtree(copy.folder)
        return found

    def _fresh(self, setting: Setting) -> BackstayCopy:
        """An empty vault; always of the same paths, which the configuration names."""
        folder, image = self._context.work / "tune", self._context.image()
        blank = self._make_blank(folder, image)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(blank, folder)
        copy = self._subject.copy(folder.resolve(), image)
        pipeline: dict[str, dict[str, Any]] = {name: dict(one) for name, one in self._fixed.items()}
        for section, values in sections(setting).items():
            pipeline[section] = pipeline.get(section, {}) | values
        copy.config.write_text(json.dumps(copy.settings(pipeline)))
        return copy

    def _make_blank(self, folder: Path, image: Path) -> Path:
        if self._blank is None:
            made = self._subject.open(self._context.folder(folder.name), image)
            assert isinstance(made, BackstayCopy)
            self._blank = self._context.work / "blank"
            shutil.move(folder, self._blank)
        return self._blank


def _seconds(copy: BackstayCopy, done: Run) -> float:
    """What it reports itself: the start of the interpreter is not what is tuned."""
    return copy.figures(done.output).get("inner", done.seconds)
