"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import Shipped, ship


@pytest.fixture(scope="session")
def shipped() -> Iterator[Shipped]:
    """One vault for all tests: read it, or take a copy."""
    with TemporaryDirectory(prefix="bs-") as folder:  # short: sockets have short paths
        yield ship(Path(folder) / "w")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path."""
    with TemporaryDirectory(prefix="bs-") as folder:
        yield Path(folder)
