from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench import output, pictures
from bench.markdown import markdown
from bench.page import page
from bench.pictures.plan import Bars, Panels, Stacks, charts
from bench.record import read
from bench.results import Outcome
from tests.bench.made_results import copying, live, result, sized

MADE = result(copying(), live(), sized())
_EMPTY = {"meta", "br", "hr", "img", "link", "input"}


class _Parsed(HTMLParser):
    """Tags balanced, names unlike each other, and what is referred to."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.references.append(str(value))
            assert not name.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _check(text: str) -> _Parsed:
    found = _Parsed(text)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(found.seen)
    assert len(found.ids) == len(set(found.ids))
    for reference in found.references:
        assert reference.startswith("#")
        assert reference[1:] in found.ids
    for inside in re.findall(r"url\(([^)]*)\)", text):
        assert inside.strip("'\"").startswith("#")
        assert inside.strip("'\"")[1:] in found.ids
    assert "@import" not in text
    return found


def test_the_folder_has_everything_and_the_page_is_whole(tmp_path: Path) -> None:
    written = output.write(tmp_path, MADE)
    assert read(written[0]) == MADE
    names = {path.name for path in written}
    for name in ("initial-ratios.svg", "initial-stages-backstay.png", "sizes-cost.svg"):
        assert name in names
    for path in written:
        assert path.stat().st_size > 100
    text = (tmp_path / "report.html").read_text()
    found = _check(text)
    assert found.seen.count("svg") == len([path for path in written if path.suffix == ".svg"])
    shown = " ".join(found.text)
    for part in (
        "a copy, <made up>",
        "Some <System> 1",
        "borg, nbdkit",
        "speed: 3.00, goal ≥ 2.5",
        "held back by: compress (97% busy)",
        "a note & more",
        "bench --only <initial>",
    ):
        assert part in shown
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        output.write(folder, result(copying()))
    for path in sorted(one.rglob("*.*")):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def test_pictures_stand_alone_without_dates_and_external_things(tmp_path: Path) -> None:
    (first, *_) = pictures.of(copying())
    assert "<dc:date>" not in first.svg
    assert "<text" not in first.svg  # letters are paths: every reader has them
    assert first.png.startswith(b"\x89PNG")
    assert "currentColor" in first.inline
    assert "<!DOCTYPE" not in first.inline


def test_without_matplotlib_there_are_tables_and_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib" in pictures.missing()
    assert pictures.of(copying()) == []
    written = output.write(tmp_path, MADE)
    assert [path.name for path in written] == ["result.json", "report.md", "report.html"]
    text = written[-1].read_text()
    found = _check(text)
    assert "svg" not in found.seen
    assert "matplotlib is not installed" in " ".join(found.text)
    assert "2.10 (2.00–2.20)" in " ".join(found.text)


def test_markdown_is_fit_for_a_readme() -> None:
    wrong = Outcome("a", "A|B", (), wrong=("the *copy*",), failed=("restic: no\nroom",))
    text = markdown(result(copying(), wrong))
    for part in (
        "    backstay bench --only '<initial>'\n",
        "A & B Processor, 2 cores, 8.0 GiB, ext4, Some \\<System\\> 1",
        "Not installed, left out: borg, nbdkit.",
        "- a copy, \\<made up\\>: memory: 400.00 MiB, goal ≤ 300 MiB\n",
        "| backstay | 2.10 (2.00–2.20) |",
        "| speed: 3.00, goal ≥ 2.5 | reached |",
        "- backstay: held back by: compress (97% busy); others: capture 20%",
        "### A\\|B",
        "- **WRONG DATA**: the \\*copy\\*",
        "- did not run: restic: no room",
    ):
        assert part in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert len(set(widths)) == 2  # the table of subjects and the table of goals
    assert "Short of the goal:\n\n- nothing" in markdown(result(wrong))


def test_wrong_data_and_failures_are_loud() -> None:
    outcome = Outcome("a", "A", (), wrong=("the <copy>",), failed=("restic: no room",))
    shown = " ".join(_check(page(result(outcome), {})).text)
    assert "WRONG DATA in 1 copies" in shown
    assert "WRONG DATA: the <copy>" in shown
    assert "did not run: restic: no room" in shown


def test_charts_follow_from_the_figures() -> None:
    bars, stages = charts(copying())
    assert isinstance(bars, Bars)
    assert [bar.label for bar in bars.bars] == ["backstay", "restic", "ceiling: zstd"]
    assert [round(bar.value.median, 2) for bar in bars.bars] == [2.86, 1.0, 6.0]
    assert isinstance(stages, Stacks)
    assert stages.stacks[1].shares[0] == ("busy", 0.97)
    ratios, cost = charts(sized())
    assert isinstance(ratios, Bars)
    assert isinstance(cost, Panels)
    assert [line.label for line in cost.panels[0].lines] == ["backstay", "restic"]
    assert cost.panels[0].lines[1].points == ((1.0, 3.0), (2.0, 6.0), (4.0, 12.0))
    assert [chart.name for chart in charts(live())] == [
        "ratios",
        "over-time-rate-mib-s",
        "over-time-age-s",
        "distribution-age-s",
    ]
    assert charts(Outcome("a", "A", ())) == []


def test_a_distribution_ends_at_one_and_rises() -> None:
    chart = charts(live())[-1]
    assert isinstance(chart, Panels)
    for line in chart.panels[0].lines:
        assert list(line.points) == sorted(line.points)
        assert line.points[-1][1] == 1.0
        assert len(line.points) == 40
