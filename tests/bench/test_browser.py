"""The report as a reader has it: in a real browser."""

from __future__ import annotations

from pathlib import Path

from bench import output
from bench.results import Entry, Outcome, Sample
from tests.bench.browser import tab
from tests.bench.made_results import copying, live, result, sized

_WIDE = tuple((f"figure {number}", f"a figure {number}") for number in range(30))
_MANY = Outcome(
    "wide",
    "a table wider than any window",
    (Entry("some subject", (Sample(1.0, figures={name: 12345.678 for name, _ in _WIDE}),)),),
    columns=_WIDE,
)
_PICTURES = """[...document.querySelectorAll("figure svg")].map(one => {
    const box = one.getBoundingClientRect();
    const text = [...one.querySelectorAll("use")].map(part => part.getBoundingClientRect());
    return {
        width: box.width, height: box.height,
        drawn: one.querySelectorAll("path").length,
        outside: text.filter(part => part.left < box.left - 1 || part.right > box.right + 1).length,
    };
})"""
_SEEN = """({
    rows: document.querySelectorAll("section table tr").length,
    sections: document.querySelectorAll("section").length,
    over: document.documentElement.scrollWidth - window.innerWidth,
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
})"""


def test_the_report_is_whole_in_a_browser(tmp_path: Path) -> None:
    made = result(copying(), live(), sized(), _MANY)
    output.prepare(tmp_path / "report")
    page = output.write(tmp_path / "report", made)[-1]
    with tab(tmp_path / "profile") as browser:
        for width in (1280, 400):
            browser.open(page, width)
            seen = browser.ask(_SEEN)
            subjects = sum(len(outcome.entries) for outcome in made.scenarios)
            assert seen["rows"] >= subjects + len(made.scenarios)
            assert seen["sections"] == len(made.scenarios) + 1
            assert seen["over"] <= 0  # only tables scroll sideways, by themselves
            assert seen["ink"] != seen["paper"]
            pictures = browser.ask(_PICTURES)
            assert len(pictures) >= 5
            for picture in pictures:
                assert picture["height"] > 80
                assert picture["width"] >= 400  # else its words cannot be read
                assert picture["drawn"] > 5
                assert picture["outside"] == 0
        assert set(browser.requested) == {page.as_uri()}
        assert browser.trouble == []
        browser.ask("console.error('as a page would')")
        assert len(browser.trouble) == 1  # it is heard
