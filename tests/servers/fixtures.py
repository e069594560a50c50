"""Fixtures for tests on real object stores; a ``conftest`` imports what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from bench.servers import azurite, seaweed
from bench.servers.cloud import Cloud, azure_cloud, s3_cloud
from bench.servers.keeper import shared
from tests.servers.google import google_front


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """SeaweedFS, shared by all processes of the session."""
    with _server("seaweed", seaweed.missing(), tmp_path_factory) as said:
        yield s3_cloud(said, tmp_path_factory.mktemp("s3-credentials"))


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Azurite, shared by all processes of the session."""
    with _server("azurite", azurite.missing(), tmp_path_factory) as said:
        yield azure_cloud(said, tmp_path_factory.mktemp("azure-credentials"))


@pytest.fixture(scope="session")
def google(s3: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Google's words in front of SeaweedFS: see there what that shows, and what not."""
    with google_front(s3, tmp_path_factory.mktemp("google-credentials")) as found:
        yield found


@pytest.fixture(params=["s3", "azure"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each of both."""
    found: Cloud = request.getfixturevalue(request.param)
    return found


def _server(
    name: str, missing: str, factory: pytest.TempPathFactory
) -> AbstractContextManager[dict[str, Any]]:
    if missing:
        pytest.skip(f"{missing}: 'make test' brings it")
    base = factory.getbasetemp()
    # With xdist each process has a folder of its own, beside those of the others.
    return shared(name, base.parent if base.name.startswith("popen-") else base)
