"""Servers of disks that are one process on a Unix socket; qemu-nbd, of the package qemu-utils."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.live import NbdkitServing
from bench.measure import Command, CommandFailed
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

    def begin(socket: Path) -> subprocess.Popen[bytes]:
        how = ("--read-only",) if read_only else ("--cache=writeback",)
        reach = ("--socket", str(socket), "--export-name", DISK)
        shared = f"--shared={_CLIENTS}"
        return Command(
            (QEMU_NBD, "--persistent", shared, "-f", kind, *how, *reach, str(image))
        ).popen()

    with listening(QEMU_NBD, begin) as server:
        yield server


@contextmanager
def listening(
    name: str, begin: Callable[[Path], subprocess.Popen[bytes]]
) -> Iterator[NbdkitServing]:
    """A server that ``begin`` starts on a socket, once that is there. Raises ``CommandFailed``."""
    with tempfile.TemporaryDirectory(prefix="bs-") as short:
        socket = Path(short, "s")
        process = begin(socket)
        try:
            deadline = time.monotonic() + _LISTENS
            while not socket.exists():
                if process.poll() is not None:
                    raise CommandFailed(f"{name} ended with {process.returncode}")
                if time.monotonic() > deadline:
                    raise CommandFailed(f"{name} does not listen")
                time.sleep(_LOOK)
            yield NbdkitServing(process, socket)
        finally:
            process.kill()
            process.wait()
