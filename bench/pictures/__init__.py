"""Pictures of an outcome. They need matplotlib, which is optional; nothing else here does."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from bench.pictures.plan import Chart, charts
from bench.results import Outcome


@dataclass(frozen=True, slots=True)
class Picture:
    """``name`` is for files. ``svg`` and ``png`` stand alone, on white. ``inline``: an ``svg``
    element without background for a page, whose texts and lines have the page's colour."""

    name: str
    title: str
    svg: str
    png: bytes
    inline: str


def missing() -> str:
    """Why there are no pictures, or nothing."""
    try:
        import_module("matplotlib")
    except ImportError:
        return "no pictures: matplotlib is not installed (pip install 'backstay[pictures]')"
    return ""


def of(outcome: Outcome) -> list[Picture]:
    """All that its figures allow; none without matplotlib."""
    found = charts(outcome)
    return [_drawn(chart) for chart in found] if found and not missing() else []


def _drawn(chart: Chart) -> Picture:
    from bench.pictures.draw import draw

    return Picture(chart.name, chart.title, *draw(chart))
