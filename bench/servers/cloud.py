"""A server that runs, a bucket in it, and the files with credentials that clients are given."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.servers import azurite, seaweed
from bench.servers.places import make_bucket, make_container
from stages.store.address import compose

S3_FILE = """\
[default]
aws_access_key_id = {}
aws_secret_access_key = {}
"""
SERVERS = {"SeaweedFS": seaweed, "Azurite": azurite}


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


def s3_cloud(said: Mapping[str, Any], folder: Path) -> Cloud:
    """A new bucket of a SeaweedFS that said where it is; credentials go into ``folder``."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(said["endpoint"], bucket)
    for name, pair in (("writer", seaweed.WRITER), ("reader", seaweed.READER)):
        (folder / name).write_text(S3_FILE.format(*pair))
    (folder / "wrong").write_text(S3_FILE.format(seaweed.WRITER[0], "not-the-secret"))
    (folder / "stranger").write_text(S3_FILE.format("nobody", "not-a-secret"))
    return Cloud("s3", said["port"], bucket, folder)


def azure_cloud(said: Mapping[str, Any], folder: Path) -> Cloud:
    """A new container of an Azurite, likewise."""
    container = f"container-{uuid.uuid4().hex[:12]}"
    make_container(said["endpoint"], container)
    (folder / "writer").write_text(f"AZURE_STORAGE_ACCOUNT_KEY={azurite.KEY}\n")
    wrong = azurite.KEY.replace("E", "F")
    (folder / "wrong").write_text(f"AZURE_STORAGE_ACCOUNT_KEY={wrong}\n")
    return Cloud("az", said["port"], container, folder)


@contextmanager
def running(name: str, folder: Path) -> Iterator[Cloud]:
    """One of ``SERVERS`` on an empty folder, killed at the end. Raises ``ServerFailed``."""
    data, keys = folder / "data", folder / "keys"
    data.mkdir()
    keys.mkdir()
    with (folder / "log").open("wb") as log:
        process, said = SERVERS[name].start(data, log)
    try:
        yield {"SeaweedFS": s3_cloud, "Azurite": azure_cloud}[name](said, keys)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
