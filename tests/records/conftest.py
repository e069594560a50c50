"""The same tests against SQLite and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.records import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    if postgres.binaries() is None:
        pytest.skip("Debian's package postgresql is not installed")
    with postgres.server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that is not there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "control.db")
    found: postgres.Server = request.getfixturevalue("server")
    return found.fresh()
