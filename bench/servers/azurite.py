"""Azurite, Microsoft's own emulator of Azure Blob Storage: from npm, on node.

``make`` puts both beside the packages of the virtual environment.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from bench.servers.ports import free_ports, listening

ACCOUNT = "devstoreaccount1"
# Of every Azurite in the world.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
NODE = Path(sys.prefix) / "bin/node"
PROGRAM = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"


def missing() -> str:
    """Why it cannot be started here, or ""."""
    for file in (NODE, PROGRAM):
        if not file.exists():
            return f"azurite is not whole: no {file}"
    return ""


def start(
    folder: Path, log: IO[bytes] | None = None
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start it on ``folder``; its ``endpoint``. What it says goes to ``log``, if given."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [
            *(str(NODE), str(PROGRAM), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
            *("--location", str(folder), "--silent", "--skipApiVersionCheck"),
            "--disableTelemetry",
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    listening(port, process)
    return process, {"port": port, "endpoint": f"http://127.0.0.1:{port}/{ACCOUNT}"}
