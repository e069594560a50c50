"""Which settings are compared next, what is taken, and when to stop. Pure.

A coordinate search: one option after the other is moved by a step against the incumbent, further
in the same direction as long as that gains. Each comparison is a row of pairs of runs. At the end
the winner is held against what the search began with, in fresh pairs: only that decides. So however
many options noise lets pass on the way, it makes a recommendation with chance ``alpha`` at most.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from statistics import median
from types import MappingProxyType

from bench.tune.noise import chance, fewest, gain, interval
from bench.tune.space import Option, Setting, Value


@dataclass(frozen=True, slots=True)
class Measure:
    """One run: seconds; bytes resident at most; bytes stored."""

    seconds: float
    peak: int
    stored: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two settings to run one after the other; ``number`` within its row, to alternate by."""

    candidate: Setting
    incumbent: Setting
    number: int
    what: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Both runs of a pair; ``candidate`` None: it failed. ``hurry``: no time for another option;
    ``late``: not even for another pair."""

    candidate: Measure | None
    incumbent: Measure
    hurry: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """``pairs`` of a comparison on the way and ``final`` ones; the greatest chance that noise
    passes one on the way (``step_alpha``) or the last (``alpha``); ``least`` gain that counts.
    ``memory``: bytes that a setting may use, or as much as before; ``growth``: how much more may be
    stored, None for any; ``most``: pairs in all before the final ones."""

    pairs: int = 5
    final: int = 7
    step_alpha: float = 0.1
    alpha: float = 0.05
    least: float = 1.01
    memory: int = 300 << 20
    growth: float | None = 0.02
    most: int = 200

    def __post_init__(self) -> None:
        if self.pairs < fewest(self.step_alpha) or self.final < fewest(self.alpha):
            raise ValueError("so few pairs can never show anything")


@dataclass(frozen=True, slots=True)
class Step:
    """A comparison on the way. ``ratios`` above 1: the candidate was faster. ``why`` not taken."""

    option: str
    before: Value
    after: Value
    ratios: tuple[float, ...]
    taken: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``setting`` is the one to use: the first one unless ``sure`` is at least 1 - alpha.

    ``gain``: median ratio of the final pairs; ``low`` and ``high`` bound it 9 times of 10.
    ``sure``: 1 minus the chance that noise alone looks like this. ``pairs``: of runs, in all.
    ``late``: the time was over before everything had been compared.
    """

    setting: Setting
    steps: tuple[Step, ...]
    ratios: tuple[float, ...] = ()
    gain: float = 1.0
    low: float = 1.0
    high: float = 1.0
    sure: float = 0.0
    pairs: int = 0
    why: str = ""
    late: bool = False


_NOISE = "the gain is within the noise"
_LATE = "the time was over"
NOTHING = "nothing is better than the noise"
Asking = Generator[Pair, Answer, Verdict]


@dataclass
class _Row:
    """The pairs of one comparison."""

    ratios: list[float] = field(default_factory=list)
    peaks: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    stored: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def add(self, mine: Measure, theirs: Measure) -> None:
        self.ratios.append(theirs.seconds / mine.seconds)
        for kept, one, other in (
            (self.peaks, mine.peak, theirs.peak),
            (self.stored, mine.stored, theirs.stored),
        ):
            kept[0].append(one)
            kept[1].append(other)


class _Search:
    """What is known on the way."""

    def __init__(self, start: Setting, rules: Rules):
        self.rules = rules
        self.start = self.incumbent = start
        self.steps: list[Step] = []
        self.pairs = 0
        self.hurry = False
        self.stored = 0  # by the first setting

    @property
    def over(self) -> bool:
        return self.hurry or self.pairs >= self.rules.most

    def row(
        self, candidate: Setting, incumbent: Setting, what: str, count: int
    ) -> Generator[Pair, Answer, tuple[_Row, str]]:
        """Up to ``count`` pairs; why it is hopeless, if it is. To give up early is never to take
        something more easily."""
        row = _Row()
        for number in range(count):
            answer = yield Pair(candidate, incumbent, number, what)
            self.pairs += 1
            self.hurry = self.hurry or answer.hurry
            self.stored = self.stored or answer.incumbent.stored
            if answer.candidate is None:
                return row, "it failed"
            row.add(answer.candidate, answer.incumbent)
            if broken := self._limits(row):
                return row, broken
            if sum(ratio <= 1 for ratio in row.ratios) >= 2 and gain(row.ratios) < 1:
                return row, "it is not faster"
            if answer.late and number + 1 < count:
                return row, _LATE
        return row, ""

    def judged(self, row: _Row, alpha: float) -> str:
        """Why a whole row does not show a gain, or nothing."""
        if gain(row.ratios) < self.rules.least:
            return "it is not faster"
        if chance(row.ratios) > alpha:
            return _NOISE
        return ""

    def _limits(self, row: _Row) -> str:
        peak, before = median(row.peaks[0]), median(row.peaks[1])
        if peak > max(self.rules.memory, before):
            return "it needs too much memory"
        growth = self.rules.growth
        if growth is not None and median(row.stored[0]) > self.stored * (1 + growth):
            return "it stores too much"
        return ""


def search(start: Setting, options: tuple[Option, ...], rules: Rules) -> Asking:
    """Yields pairs to run, is sent answers, returns the verdict. Draws nothing, reads no clock."""
    found = _Search(start, rules)
    unmoved, turn = 0, 0
    while unmoved < len(options) and not found.over:
        moved = yield from _climb(found, options[turn % len(options)])
        unmoved = 0 if moved else unmoved + 1
        if moved:
            unmoved = 1  # this option has just been looked at from where it now stands
        turn += 1
    return (yield from _confirm(found))


def _climb(found: _Search, option: Option) -> Generator[Pair, Answer, bool]:
    """One option as far as it gains: upwards, or else downwards. Where a step is lost in the noise
    the next one is tried too: a larger difference is easier to see."""
    moved = False
    for values in option.around(found.incumbent[option.name]):
        for value in values:
            if found.over:
                return moved
            why = yield from _step(found, option, value)
            moved = moved or not why
            if why not in ("", _NOISE):
                break
        if moved:
            break
    return moved


def _step(found: _Search, option: Option, value: Value) -> Generator[Pair, Answer, str]:
    """Why it is not taken, or nothing."""
    before = found.incumbent
    candidate: Setting = MappingProxyType({**before, option.name: value})
    what = f"{option.name} {option.shown(value)}"
    row, why = yield from found.row(candidate, before, what, found.rules.pairs)
    why = why or found.judged(row, found.rules.step_alpha)
    found.steps.append(
        Step(option.name, before[option.name], value, tuple(row.ratios), not why, why)
    )
    if not why:
        found.incumbent = candidate
    return why


def _confirm(found: _Search) -> Asking:
    """Fresh pairs of the winner and the first setting, which alone decide."""
    steps = tuple(found.steps)
    late = found.hurry
    if found.incumbent == found.start:
        told = any(step.why != _LATE for step in steps)
        why = NOTHING if told else f"{_LATE} before one option had been compared"
        if told and late:
            why = f"{why}, of what there was time for"
        return Verdict(found.start, steps, pairs=found.pairs, why=why, late=late)
    rules = found.rules
    row, why = yield from found.row(found.incumbent, found.start, "all of it", rules.final)
    why = why or found.judged(row, rules.alpha)
    low, high = interval(row.ratios) if row.ratios else (1.0, 1.0)
    return Verdict(
        setting=found.start if why else found.incumbent,
        steps=steps,
        ratios=tuple(row.ratios),
        gain=gain(row.ratios) if row.ratios else 1.0,
        low=low,
        high=high,
        sure=1 - chance(row.ratios),
        pairs=found.pairs,
        why=f"{why} before that was sure" if why == _LATE else why,
        late=late,
    )
