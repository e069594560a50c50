"""The README's performance section is made from files that are kept, and nothing else."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import cli, output
from bench.publish.marks import BEGIN, END
from bench.publish.section import section
from bench.publish.slim import Private, slim
from bench.record import Result, read
from bench.results import Goal, Outcome
from bench.table import table_of
from tests.bench.made_results import MACHINE, copying, live, result

PAGE = f"# Ours\n\nBefore.\n\n{BEGIN} -->\n{END}\n\nAfter.\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "README.md"
    path.write_text(PAGE)
    return path


def ran(folder: Path, *outcomes: Outcome, **more: object) -> Path:
    """A folder as a run leaves it."""
    output.prepare(folder)
    made = replace(result(*outcomes), **more)  # type: ignore[arg-type]
    output.keep(folder, made)
    return folder


def invoke(*words: str | Path) -> tuple[int, str]:
    found = CliRunner().invoke(cli.bench, ["publish", *map(str, words)])
    return found.exit_code, found.output


def test_one_command_puts_runs_into_the_page_and_another_checks_it(page: Path) -> None:
    runs = [ran(page.parent / "copies", copying()), ran(page.parent / "live", live())]
    assert invoke(*runs) == (
        0,
        "written: bench/results/copies.json, bench/results/live.json, README.md\n",
    )
    text = page.read_text()
    assert text.startswith("# Ours\n\nBefore.\n\n")
    assert text.endswith(f"{END}\n\nAfter.\n")
    assert f"{BEGIN} bench/results/copies.json bench/results/live.json -->" in text
    assert text.count(MACHINE.cpu) == 1  # both ran on the same one
    for words in (
        "a copy, \\<made up\\>",
        "backstay bench --only",
        "2026-01-02",
        "400 MiB",
        "Goals and aims not reached, 1 of 2:",
        "| SHORT |",
        "held back by: compress",
        "Not installed, left out: borg, nbdkit.",
    ):
        assert words in text
    assert invoke("--check") == (0, "")
    assert invoke()[0] == 0  # made anew from the files that it names
    assert page.read_text() == text


@pytest.mark.parametrize("what", ["page", "file"])
def test_another_figure_is_seen_on_either_side(page: Path, what: str) -> None:
    invoke(ran(page.parent / "copies", copying()))
    changed = page if what == "page" else page.parent / "bench/results/copies.json"
    old = changed.read_text()
    new = old.replace("| 3.00 |", "| 3.10 |") if what == "page" else old.replace(": 3.0,", ": 3.1,")
    assert new != old
    changed.write_text(new)
    code, said = invoke("--check")
    assert code == 1
    assert "bench/results/copies.json" in said
    assert invoke()[0] == 0
    assert invoke("--check")[0] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "are needed"),
        (f"{END}\n{BEGIN} -->\n", "are needed"),
        (f"{BEGIN} -->\n{BEGIN} -->\n{END}", "are needed"),
        (PAGE, "names no result file"),
        (f"{BEGIN} none.json -->\n{END}", "none.json"),
    ],
)
def test_a_page_that_cannot_be_made_is_said(page: Path, text: str, said: str) -> None:
    page.write_text(text)
    for words in ((), ("--check",)):
        code, told = invoke(*words)
        assert code == 2
        assert said in told
    assert page.read_text() == text


def test_results_that_a_page_cannot_name_are_refused(page: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    other = tmp_path / "below" / "PAGE.md"
    other.write_text(PAGE)
    code, said = invoke(ran(page.parent / "copies", copying()), "--readme", other)
    assert code == 2
    assert "the page cannot name it" in said
    assert other.read_text() == PAGE


def test_what_is_kept_shows_the_same_and_tells_nothing_private() -> None:
    secret = "/home/somebody/vault/x"
    noted = replace(
        copying(), notes=(f"left: {secret}", "and/or, 4 KiB/s"), failed=(f"at {secret}",)
    )
    command = ("bench", "--only", "initial", "--out", secret, f"--work={secret}", "--size", "5")
    made = replace(result(noted, live()), command=command)
    kept = slim(made)
    assert kept.command == ("bench", "--only", "initial", "--size", "5")
    assert "/home" not in repr(kept)
    assert kept.scenarios[0].notes == ("left: x", "and/or, 4 KiB/s")
    assert [table_of(one) for one in kept.scenarios] == [table_of(one) for one in made.scenarios]
    assert not any(
        sample.series for one in kept.scenarios for entry in one.entries for sample in entry.samples
    )
    assert slim(kept) == kept


def test_a_file_that_names_this_machine_is_refused(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "build-host-7")
    named = replace(copying(), notes=("measured on build-host-7",))
    with pytest.raises(Private, match="build-host-7"):
        slim(result(named))
    code, said = invoke(ran(page.parent / "copies", named))
    assert code == 2
    assert "build-host-7" in said
    assert page.read_text() == PAGE


def test_the_section_of_a_run_without_shortfalls(tmp_path: Path) -> None:
    good = replace(copying(), goals=(Goal("speed", 3.0, 2.5, True), Goal("later", None, 1.0, True)))
    text = section([result(good)])
    assert "None of the 2 falls short." in text
    assert "| later | – | ≥ 1 | not measured |" in text
    file = ran(tmp_path / "one", good) / output.RESULT
    found = CliRunner().invoke(cli.bench, ["report", str(file), "--markdown"])
    assert found.output == section([read(file)])
    both = CliRunner().invoke(cli.bench, ["report", str(file), str(file)])
    assert both.exit_code == 2


def test_what_was_wrong_is_loud() -> None:
    text = section([result(replace(copying(), wrong=("the copy",), failed=("borg: no",)))])
    assert "- **WRONG DATA**: the copy" in text
    assert "- did not run: borg: no" in text


def test_results_are_read_again_as_they_were_kept(page: Path) -> None:
    invoke(ran(page.parent / "copies", copying()))
    kept: Result = read(page.parent / "bench/results/copies.json")
    assert kept == slim(result(copying()))
