"""Fixtures for tests on real object stores; a ``conftest`` imports what it needs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.store.address import compose
from tests.servers import azurite, seaweed
from tests.servers.keeper import shared
from tests.servers.places import make_bucket, make_container

S3_FILE = """\
[default]
aws_access_key_id = {}
aws_secret_access_key = {}
"""


@dataclass(frozen=True)
class Cloud:
    """A server, a bucket of this process in it, and files with credentials."""

    scheme: str
    port: int
    bucket: str
    folder: Path

    def url(self, prefix: str = "", *, credentials: str = "writer", **other: str) -> str:
        """The address of a prefix (a new one, if none is given), with the server's options."""
        endpoint = f"http://127.0.0.1:{self.port}"
        options = {"endpoint": endpoint, "credentials": f"{self.folder}/{credentials}"}
        if self.scheme == "az":
            options |= {"account": azurite.ACCOUNT}
        options |= other
        if self.scheme == "az":
            options["endpoint"] += f"/{azurite.ACCOUNT}"
        prefix = prefix or uuid.uuid4().hex
        return compose(f"{self.scheme}://{self.bucket}/{prefix}", options)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """SeaweedFS, shared by all processes of the session."""
    with _server("seaweed", seaweed.missing(), tmp_path_factory) as said:
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        make_bucket(said["endpoint"], bucket)
        folder = tmp_path_factory.mktemp("s3-credentials")
        for name, pair in (("writer", seaweed.WRITER), ("reader", seaweed.READER)):
            (folder / name).write_text(S3_FILE.format(*pair))
        (folder / "wrong").write_text(S3_FILE.format(seaweed.WRITER[0], "not-the-secret"))
        (folder / "stranger").write_text(S3_FILE.format("nobody", "not-a-secret"))
        yield Cloud("s3", said["port"], bucket, folder)


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Azurite, shared by all processes of the session."""
    with _server("azurite", azurite.missing(), tmp_path_factory) as said:
        container = f"container-{uuid.uuid4().hex[:12]}"
        make_container(said["endpoint"], container)
        folder = tmp_path_factory.mktemp("azure-credentials")
        (folder / "writer").write_text(f"AZURE_STORAGE_ACCOUNT_KEY={azurite.KEY}\n")
        wrong = azurite.KEY.replace("E", "F")
        (folder / "wrong").write_text(f"AZURE_STORAGE_ACCOUNT_KEY={wrong}\n")
        yield Cloud("az", said["port"], container, folder)


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
