"""The world, built once and copied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import World, build, copied


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("template") / "world")


@pytest.fixture
def world(template: World, tmp_path: Path) -> Iterator[World]:
    with copied(template, tmp_path / "world") as found:
        yield found
