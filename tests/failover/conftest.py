"""One shipped vault for all tests that need a real file system; each spoils a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import Place, Shipped, ship


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """Made once."""
    return ship(tmp_path_factory.mktemp("failover") / "origin")


@pytest.fixture
def shipped(origin: Shipped, tmp_path: Path) -> Iterator[Shipped]:
    """A copy of everything: vault, keys, the source's state and disks."""
    with origin.copied(tmp_path / "source") as copy:
        yield copy


@pytest.fixture
def bare(shipped: Shipped) -> Iterator[Place]:
    """Another host: the vault and the operator's key, nothing of the source."""
    with TemporaryDirectory(prefix="bs-") as folder:  # short: sockets have short paths
        home = Path(folder)
        shutil.copy(shipped / "op.key", home)
        (home / "vault").symlink_to(shipped / "vault")
        yield Place(home)
