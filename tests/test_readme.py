"""The README says what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pipeline.cli.main import backstay
from stages.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_exit_codes_are_those_of_the_program() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert rows == {str(code): text for code, text in EXIT_CODES.items()}


def test_files_it_points_to_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`([a-z-]+\.yaml)`", README):
        assert name == "backstay.yaml" or (ROOT / "configs" / name).exists(), name


def _commands() -> list[str]:
    return sorted(set(re.findall(r"^backstay +([a-z]+(?: [a-z][a-z-]*)?)", README, re.MULTILINE)))


@pytest.mark.parametrize("words", _commands())
def test_commands_it_shows_exist(words: str) -> None:
    context = click.Context(backstay)
    command: click.Command | None = backstay
    for word in words.split():
        if not isinstance(command, click.Group):
            break
        command = command.get_command(context, word)
        assert command is not None, words


def test_dependencies_are_explained() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in re.findall(r'^    "([a-z0-9.-]+)>=', project, re.MULTILINE):
        assert name in README, name
