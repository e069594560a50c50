"""A machine with one live disk, ready for ``run``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import Place
from tests.daemon.running import prepare


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as folder:
        yield prepare(Path(folder))
