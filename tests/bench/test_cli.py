from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import cli, machine
from bench.context import Context
from bench.results import Entry, Goal, Outcome, Sample
from bench.scenarios import SCENARIOS


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
