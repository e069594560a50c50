"""Runs scenarios one after the other, shows each and keeps it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import machine
from bench.context import Context, Scale
from bench.record import Result
from bench.report import show
from bench.results import Outcome
from bench.scenarios import Scenario
from bench.subjects import BACKSTAY

WRONG_DATA = 1
DID_NOT_RUN = 3
WIDTH = 150  # columns where nobody says how wide the terminal is


class Recorder:
    """What is known of a run besides its outcomes, from its beginning."""

    def __init__(self, work: Path, command: Sequence[str], scale: Scale):
        self._began = datetime.now(UTC).isoformat(timespec="seconds")
        self._command = tuple(command)
        self._scale = {name: float(one) for name, one in asdict(scale).items() if _single(one)}
        self._before = machine.load()
        self._machine = machine.look(work)
        self._revision = machine.revision()
        self.took: dict[str, float] = {}

    def result(self, outcomes: Sequence[Outcome]) -> Result:
        """As it stands now."""
        return Result(
            began=self._began,
            command=self._command,
            revision=self._revision,
            machine=self._machine,
            load_before=self._before,
            load_after=machine.load(),
            scenarios=tuple(outcomes),
            took=dict(self.took),
            scale=self._scale,
        )


def run_all(
    context: Context,
    scenarios: dict[str, tuple[str, Scenario]],
    *,
    quiet: bool,
    recorder: Recorder,
    keep: Callable[[Result], None] = lambda _: None,
    within: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """In the given order; each is shown as soon as it is measured, then ``keep`` is called.

    None is begun later than ``within`` seconds after the first; those that are left out say so.
    """
    started = clock()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    outcomes: list[Outcome] = []
    for name, (title, scenario) in scenarios.items():
        context.say(title)
        began = clock()
        late = began - started > within
        outcomes.append(_left_out(name, title, within) if late else scenario(context))
        recorder.took[name] = round(clock() - began, 3)
        if not quiet:
            show(console, outcomes[-1])
        keep(recorder.result(outcomes))
    return outcomes


def _single(value: object) -> bool:
    return isinstance(value, int | float)


def _left_out(name: str, title: str, within: float) -> Outcome:
    note = f"left out: the {within:g} s of this run were over (--only {name} measures it)"
    return Outcome(name, title, (), notes=(note,))


def code_of(outcomes: Sequence[Outcome]) -> int:
    """The exit code: wrong data is an error, slowness is a measurement."""
    if any(outcome.wrong for outcome in outcomes):
        return WRONG_DATA
    failed = [line for outcome in outcomes for line in outcome.failed]
    return DID_NOT_RUN if any(line.startswith(f"{BACKSTAY}:") for line in failed) else 0
