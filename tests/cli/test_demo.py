"""The demonstration, whole; and what it says where it cannot run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.support import Place


def test_it_comes_back_twice(tmp_path: Path) -> None:
    place = Place(tmp_path)
    found = place.json("demo", "--dir", "kept")
    assert found["identical"]
    assert len(found["points"]) == 2
    assert found["points"] == sorted(found["points"])
    results = [step["result"] for step in found["steps"]]
    assert results[-2:] == ["identical, file system clean"] * 2
    bare = place / "kept" / "bare"
    assert {path.name for path in bare.iterdir()} >= {"vault", "operator.key"}
    assert not (place / "kept" / "disk.img").exists()
    again = place.backstay("demo", "--dir", "kept", "--json")
    assert (again.code, again.error["message"]) == (2, "exists already")


def test_without_the_file_systems_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    said = Place(tmp_path).backstay("demo", "--json")
    assert (said.code, said.out) == (15, "")
    assert said.error["error"] == "MissingTool"
    assert "apt install e2fsprogs" in said.error["hint"]


def test_a_step_that_fails_ends_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here with that of a configuration without machines."""
    monkeypatch.setattr("pipeline.demo._CONTENT", 1 << 20)
    monkeypatch.setattr("pipeline.demo._CONFIG", "daemon: {state: ./state}\n")
    said = Place(tmp_path).backstay("demo", "--json")
    assert (said.code, said.error["error"]) == (3, "ConfigError")
    assert said.error["subject"].startswith("backstay run")
