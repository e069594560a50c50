from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import cli, machine
from bench.context import QUICK, Context
from bench.record import read
from bench.results import Entry, Goal, Outcome, Sample
from bench.running import Recorder, run_all
from bench.scenarios import SCENARIOS, Scenario
from tests.bench.support import TINY, context


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run leaves does not lie in the sources; versions are asked of one program only."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.setattr(machine, "PROGRAMS", {"sh": ("sh", "-c", "echo sh 1")})


def invoke(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(cli.bench, arguments)
    return found.exit_code, found.stdout


def test_list_names_scenarios_and_subjects() -> None:
    code, text = invoke("--list")
    assert code == 0
    for name in (*SCENARIOS, "restic", "backstay"):
        assert name in text
    found = json.loads(invoke("--list", "--json")[1])
    assert list(found["scenarios"]) == list(SCENARIOS)


def test_an_unknown_scenario_is_a_usage_error() -> None:
    assert invoke("--only", "nothing")[0] == 2


def test_no_scenario_begins_after_the_time_is_up(tmp_path: Path) -> None:
    seconds = iter([0.0, 0.0, 9.0, 9.0, 11.0, 11.0, 11.0])
    one = (Entry("one", (Sample(1.0),)),)

    def made(name: str) -> tuple[str, Scenario]:
        return name, lambda _: Outcome(name, name, one)

    scenarios = {name: made(name) for name in "abc"}
    recorder = Recorder(tmp_path, ("x",), TINY)
    kept: list[int] = []
    found = run_all(
        context(tmp_path),
        scenarios,
        quiet=True,
        recorder=recorder,
        keep=lambda result: kept.append(len(result.scenarios)),
        within=10.0,
        clock=lambda: next(seconds),
    )
    assert [outcome.entries for outcome in found] == [one, one, ()]
    assert "--only c" in found[2].notes[0]
    assert recorder.took == {"a": 9.0, "b": 2.0, "c": 0.0}
    assert kept == [1, 2, 3]


def test_a_run_leaves_a_folder_and_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = Outcome("a", "A", (Entry("one", (Sample(1.0),)),))
    monkeypatch.setattr(cli, "SCENARIOS", {"a": ("A", lambda _: outcome)})
    found = CliRunner().invoke(cli.bench, ["--out", str(tmp_path / "out"), "--quick"])
    assert found.exit_code == 0
    assert "report.html" in found.stderr
    result = read(tmp_path / "out" / "result.json")
    assert result.scenarios == (outcome,)
    assert result.scale["content"] == QUICK.content
    assert invoke()[0] == 0
    assert Path(cli.DEFAULT_OUT, "report.html").exists()


def test_a_quick_run_ends_with_what_tells_least(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: (name, lambda _, name=name: Outcome(name, name, ())) for name in ("grid", "a")}
    monkeypatch.setattr(cli, "SCENARIOS", made)
    for words, order in ((("--quick",), ["a", "grid"]), ((), ["grid", "a"])):
        found = json.loads(invoke("--json", *words)[1])
        assert [one["scenario"] for one in found["scenarios"]] == order


def test_a_folder_that_cannot_be_written_is_said_before_measuring(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "SCENARIOS", {"a": ("A", lambda _: pytest.fail("measured"))})
    (tmp_path / "file").touch()
    code, _ = invoke("--out", str(tmp_path / "file" / "out"))
    assert code == 2


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome("a", "A", (), goals=(Goal("speed", 1.0, 2.0, True),)), 0),
        (Outcome("a", "A", (), wrong=("a copy",), failed=("backstay: x",)), 1),
        (Outcome("a", "A", (), failed=("backstay: x",)), 3),
        (Outcome("a", "A", (), failed=("restic: x",)), 0),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, outcome: Outcome, code: int) -> None:
    monkeypatch.setattr(cli, "SCENARIOS", {"a": ("A", lambda _: outcome)})
    assert invoke()[0] == code


def test_json_is_one_document_and_the_work_folder_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Path] = []

    def scenario(context: Context) -> Outcome:
        seen.append(context.folder("something"))
        return Outcome("a", "A", (Entry("one", (Sample(float(context.repeat)),)),))

    monkeypatch.setattr(cli, "SCENARIOS", {"a": ("A", scenario)})
    code, text = invoke("--json", "--repeat", "5", "--work", str(tmp_path))
    assert code == 0
    found = json.loads(text)
    assert found["scenarios"][0]["entries"][0]["samples"][0]["seconds"] == 5.0
    assert seen[0].is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
