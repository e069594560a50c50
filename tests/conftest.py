"""What all tests share: on the project's own CI nothing may be skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import forked
from tests.site.serving import Served, served

# On CI the same examples every time: a run says something about the change, not about luck. New
# examples are looked for wherever else the tests run.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests begin first: else the run ends with one process at work and the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def site_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A second site that tests share, each with what it needs: none relies on it being empty."""
    with served(tmp_path_factory.mktemp("site")) as found:
        yield found


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A skipped test is a part that was not there: CI has all parts."""
    forked.end()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if reporter and skipped and os.environ.get("CI"):
        reporter.write_line(f"{len(skipped)} skipped, and on CI nothing may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
