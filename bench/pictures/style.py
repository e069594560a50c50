"""How pictures look, and how a figure becomes text.

Colours: Okabe and Ito's, which people with any colour vision tell apart ("Color Universal Design",
2008), and lines differ in their dashes too. The same figures give the same bytes: element names are
hashed with a fixed salt and no date is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.roles import Role

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
Dashes = str | tuple[int, tuple[int, ...]]
LINES: tuple[tuple[str, Dashes], ...] = (
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (RED, ":"),
    (PURPLE, (0, (5, 1, 1, 1, 1, 1))),
    (SKY, (0, (1, 1))),
)
ROLES: Mapping[Role, str] = {
    Role.OURS: BLUE,
    Role.PEER: ORANGE,
    Role.CEILING: GREEN,
    Role.MEMORY: PURPLE,
}
SHARES: Mapping[str, tuple[str, str]] = {
    "busy": (BLUE, "busy"),
    "wait_in": (SKY, "waits for input"),
    "wait_out": (ORANGE, "waits for the next"),
}
INK = "#1f2328"  # of texts and axes; a page gives them its own colour
WIDTH = 7.2  # inches
_DPI = 144
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "svg": {"hashsalt": "backstay", "fonttype": "path"},
    "font": {"family": ["DejaVu Sans"], "size": 9},  # it comes with matplotlib
    "text": {"color": INK, "parse_math": False},
    "axes": {"labelcolor": INK, "edgecolor": INK, "titlesize": 9, "grid": True},
    "axes.spines": {"top": False, "right": False},
    "grid": {"alpha": 0.25, "color": INK},
    "xtick": {"color": INK},
    "ytick": {"color": INK},
    "legend": {"frameon": False},
    "lines": {"linewidth": 1.4},
}
_NO_DATA: Mapping[str, None] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def render(fill: Callable[[Figure], None], name: str, height: float) -> tuple[str, bytes, str]:
    """The picture on white as SVG and PNG, and as an element for a page; ``name`` is unlike those
    of all other pictures of that page."""
    with mpl.rc_context():
        mpl.rcdefaults()  # whoever runs this may have settings of their own
        choose: Any = mpl.rc  # its names differ from version to version
        for group, settings in _SETTINGS.items():
            choose(group, **settings)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        fill(figure)
        svg = _saved(figure, "svg").decode()
        figure.set_layout_engine("none")  # all has its place now, and to find it is dear
        png = _saved(figure, "png")
    return _on_white(svg), png, _inline(svg, name)


def _saved(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    background = "none" if kind == "svg" else "white"
    metadata: Mapping[str, None] = _NO_DATA if kind == "svg" else {"Software": None}
    figure.savefig(file, format=kind, dpi=_DPI, facecolor=background, metadata=dict(metadata))
    return file.getvalue()


def _on_white(svg: str) -> str:
    end = svg.index(">", svg.index("<svg")) + 1
    return f'{svg[:end]}\n <rect width="100%" height="100%" fill="#ffffff"/>{svg[end:]}'


def _inline(svg: str, name: str) -> str:
    """The element alone: without document type, with names of its own, in the page's colours."""
    text = svg[svg.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1).replace(
        "<svg ", '<svg role="img" ', 1
    )
