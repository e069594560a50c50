from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.machine import file_system, look
from bench.record import WrongFile, as_fields, as_text, parse, read
from bench.results import Entry, Sample
from tests.bench.made_results import copying, live, result, sized

MADE = result(copying(), live(), sized())


def test_what_is_written_is_read_back_and_nothing_is_lost() -> None:
    assert parse(as_text(MADE), "x") == MADE


def test_the_file_says_verdicts_and_medians() -> None:
    found = json.loads(as_text(MADE))
    (first, *_) = found["scenarios"]
    assert [goal["verdict"] for goal in first["goals"]] == ["reached", "short"]
    assert first["entries"][0]["median"]["seconds"] == 2.1
    assert (found["format"], found["version"]) == ("backstay-bench", 1)


def test_a_figure_that_is_no_number_is_not_written() -> None:
    entry = Entry("x", (Sample(float("nan")),))
    with pytest.raises(ValueError, match="JSON"):
        as_text(result(replace(copying(), entries=(entry,))))


def _fields() -> dict[str, Any]:
    found = json.loads(json.dumps(as_fields(MADE)))
    assert isinstance(found, dict)
    return found


def _sample(fields: dict[str, Any]) -> dict[str, Any]:
    found = fields["scenarios"][0]["entries"][0]["samples"][1]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f.update(format="other"), "format: not a result file"),
        (lambda f: f.update(version=2), "version: 1 is understood, not 2"),
        (lambda f: f.update(version=True), "version: 1 is understood, not True"),
        (lambda f: f.pop("version"), "version: 1 is understood, not None"),
        (lambda f: f.pop("machine"), "machine: "),
        (lambda f: f["machine"].pop("cores"), r"machine\.cores: "),
        (lambda f: f["machine"].update(cores="2"), r"machine\.cores: "),
        (lambda f: f.update(more=1), "more: "),
        (lambda f: f.update(scenarios={}), "scenarios: "),
        (lambda f: f.update(scenarios=[1]), r"scenarios\.0: "),
        (lambda f: _sample(f).pop("seconds"), r"scenarios\.0\.entries\.0\.samples\.1\.seconds: "),
        (lambda f: _sample(f).update(sekunden=1), r"samples\.1\.sekunden: "),
        (lambda f: _sample(f).update(peak=1.5), r"samples\.1\.peak: "),
        (lambda f: _sample(f).update(series={"a": [[1]]}), r"samples\.1\.series\.a\.0"),
        (lambda f: _sample(f).update(figures={"a": "1"}), r"samples\.1\.figures\.a: "),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(spoil: Any, said: str) -> None:
    fields = _fields()
    spoil(fields)
    with pytest.raises(WrongFile, match=rf"^some\.json: .*{said}"):
        parse(json.dumps(fields), "some.json")


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"format": NaN}', "[" * 100_000])
def test_text_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(WrongFile, match=r"^some\.json: not"):
        parse(text, "some.json")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(WrongFile, match=r"none\.json: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "odd.json").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongFile, match=r"odd\.json: not a text file"):
        read(tmp_path / "odd.json")


def test_this_machine_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"sh": ("sh", "-c", "echo one; echo two"), "gone": ("no-such-program",)}
    monkeypatch.setattr("bench.machine.PROGRAMS", programs)
    found = look(tmp_path)
    assert found.programs == {"sh": "one"}
    assert found.missing == ("gone",)
    assert found.cores >= 1
    assert found.memory > 1 << 20
    assert found.file_system != "unknown"
    assert found.libraries["numpy"]


def test_the_nearest_mount_counts() -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /no/such rw shared:1 - xfs /dev/b rw\n"
        "3 1 0:3 / /no/such\\040one rw - tmpfs t rw\n"
    )
    assert file_system(Path("/no/such/folder"), mounts) == "xfs"
    assert file_system(Path("/no/such one"), mounts) == "tmpfs"
    assert file_system(Path("/no/suchlike"), mounts) == "ext4"
    assert file_system(Path("/x"), "") == "unknown"
