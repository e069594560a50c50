"""Another server that a guest may write through: qemu-nbd, of the package qemu-utils."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.live import NbdkitServing
from bench.measure import CommandFailed
from bench.subjects import DISK

QEMU_NBD = "qemu-nbd"
_LISTENS = 30.0  # seconds
_LOOK = 0.02
_CLIENTS = 16  # at a time


def qemu_nbd_missing() -> str:
    """What is not installed, or nothing."""
    return "" if shutil.which(QEMU_NBD) else QEMU_NBD


@contextmanager
def qemu_nbd(image: Path, kind: str = "raw", *, read_only: bool = False) -> Iterator[NbdkitServing]:
    """Serve an image with the page cache between, as nbdkit does. Raises ``CommandFailed``."""
    with tempfile.TemporaryDirectory(prefix="bs-") as short:
        socket = Path(short, "s")
        how = ("--read-only",) if read_only else ("--cache=writeback",)
        reach = ("--socket", str(socket), "--export-name", DISK)
        process = subprocess.Popen(
            [
                QEMU_NBD,
                "--persistent",
                f"--shared={_CLIENTS}",
                "-f",
                kind,
                *how,
                *reach,
                str(image),
            ],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + _LISTENS
            while not socket.exists():
                if process.poll() is not None:
                    raise CommandFailed(f"{QEMU_NBD} ended with {process.returncode}")
                if time.monotonic() > deadline:
                    raise CommandFailed(f"{QEMU_NBD} does not listen")
                time.sleep(_LOOK)
            yield NbdkitServing(process, socket)
        finally:
            process.kill()
            process.wait()
