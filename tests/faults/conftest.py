"""The world, built once and copied for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import MIB, World, build, copied

_MEMORY = Path("/dev/shm")
_ROOM = 512 * MIB


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """Where worlds live: in memory if there is room, because a thousand syncs take their time."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="backstay-", dir=_MEMORY if roomy else None) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def template(place: Path) -> World:
    return build(place / "template")


@pytest.fixture
def world(template: World, place: Path) -> Iterator[World]:
    with copied(template, place / "world") as found:
        yield found
