"""Draws charts with matplotlib."""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from bench.pictures.plan import Bars, Chart, Line, Panels, Stacks
from bench.pictures.style import INK, LINES, ROLES, SHARES, Dashes, render

_LONGEST = 44  # characters of a label beside a bar
_HEAD = 0.9  # inches that are not bars
_BAR = 0.27
_PANEL = 2.1
_NAMES, _NAME = 3, 0.22  # names of lines side by side; inches of a row of them


def draw(chart: Chart) -> tuple[str, bytes, str]:
    """SVG, PNG, and the element for a page."""
    name = f"{chart.name}-{_mark(chart.title)}"
    match chart:
        case Bars():
            return render(partial(_bars, chart), name, _HEAD + _BAR * len(chart.bars))
        case Stacks():
            return render(partial(_stacks, chart), name, _HEAD + _BAR * len(chart.stacks) + 0.2)
        case Panels():
            rows = -(-len(chart.panels) // 2)
            named = -(-len(_labels(chart)) // _NAMES) if _named(chart) else 0
            return render(partial(_panels, chart), name, 0.5 + _PANEL * rows + _NAME * named)


def _labels(chart: Panels) -> list[str]:
    """Of all lines, in the order in which they first appear: each looks the same in all panels."""
    return list(dict.fromkeys(line.label for panel in chart.panels for line in panel.lines))


def _named(chart: Panels) -> bool:
    """One line that has its panel for itself needs no name beside the panel's title."""
    return len(_labels(chart)) > 1 or chart.steps


def _mark(text: str) -> str:
    """A few letters that differ where titles do, and are the same in each run."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _bars(chart: Bars, figure: Figure) -> None:
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    for at, bar in enumerate(chart.bars):
        value, colour = bar.value, ROLES[bar.role]
        axes.barh(at, value.median - 1, left=1, height=0.62, color=colour)
        axes.plot([value.low, value.high], [at, at], color=INK, linewidth=1.2, marker="|")
        right = value.median >= 1
        axes.annotate(
            f"{value.median:.2f}",
            (max(value.high, 1.0) if right else min(value.low, 1.0), at),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
        )
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(chart.bars)), [_short(bar.label) for bar in chart.bars])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(chart.label)
    roles = dict.fromkeys(bar.role for bar in chart.bars)
    patches = [Patch(color=ROLES[role], label=role.value) for role in roles]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches))


def _stacks(chart: Stacks, figure: Figure) -> None:
    axes = figure.subplots()
    for at, stack in enumerate(chart.stacks):
        left = 0.0
        for kind, share in stack.shares:
            axes.barh(at, share, left=left, height=0.62, color=SHARES[kind][0])
            left += share
    kinds = dict.fromkeys(kind for stack in chart.stacks for kind, _ in stack.shares)
    axes.set_yticks(range(len(chart.stacks)), [_short(stack.label) for stack in chart.stacks])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the time")
    patches = [Patch(color=SHARES[kind][0], label=SHARES[kind][1]) for kind in kinds]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches))


def _panels(chart: Panels, figure: Figure) -> None:
    columns = min(2, len(chart.panels))
    rows = -(-len(chart.panels) // columns)
    looks = dict(zip(_labels(chart), cycle(LINES)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, panel in enumerate(chart.panels):
        axes: Axes = grid[number // columns][number % columns]
        for line in panel.lines:
            _line(axes, line, *looks[line.label], chart)
        axes.set_title(panel.title)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.set_ylim(0, axes.get_ylim()[1] * (1.08 if chart.marks else 1.0))
    for number in range(len(chart.panels), rows * columns):
        grid[number // columns][number % columns].set_visible(False)
    if _named(chart):
        handles = []
        for label, (colour, dashes) in looks.items():
            style: Any = dashes  # its types name each word that it may be
            handles.append(Line2D([], [], color=colour, linestyle=style, label=_short(label)))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(_NAMES, len(looks)))


def _line(
    axes: Axes,
    line: Line,
    colour: str,
    dashes: Dashes,
    chart: Panels,
) -> None:
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    if chart.steps:
        axes.step(xs, ys, where="post", color=colour, linestyle=dashes, label=line.label)
        for share in (0.5, 0.99):
            at = xs[min(len(xs) - 1, int(share * len(xs)))]
            axes.axvline(at, color=colour, linewidth=0.8, alpha=0.6)
            axes.annotate(f"p{share * 100:.0f} {at:.2f}", (at, share / 2), rotation=90, va="center")
        return
    mark = "o" if chart.marks or len(xs) == 1 else ""
    axes.plot(xs, ys, color=colour, linestyle=dashes, marker=mark, markersize=4, label=line.label)
    if line.turns:
        lows, highs = [low for low, _ in line.turns], [high for _, high in line.turns]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.18, linewidth=0)


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
