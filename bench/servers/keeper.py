"""Keeps a server that is dear to start, for all who ask.

``python -m bench.servers.keeper NAME DIR``. Everyone who uses the server holds a connection to
``DIR/NAME.sock`` open, over which its address was told. When the last one is gone, killed ones
included, the server is killed and this process ends. So the processes of one test session share a
server, and it does not outlive them.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.servers import azurite, seaweed
from bench.servers.ports import ServerFailed

KINDS = {"azurite": azurite.start, "seaweed": seaweed.start}
PATIENCE = 120.0  # seconds for a server to come up
_STARTED: list[subprocess.Popen[bytes]] = []  # they outlive this process if others need them
_ALONE = 30.0  # seconds for the first user to come


def keep(name: str, folder: Path) -> None:
    """Start the server, tell those who connect where it is, stop when all have gone."""
    with tempfile.TemporaryDirectory(prefix=f"bs-{name}-", ignore_cleanup_errors=True) as data:
        process, said = KINDS[name](Path(data))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/{name}.sock.new")
        listener.listen(64)
        Path(f"{folder}/{name}.sock.new").rename(f"{folder}/{name}.sock")
        try:
            _serve(listener, process, json.dumps(said).encode() + b"\n")
        finally:
            Path(f"{folder}/{name}.sock").unlink(missing_ok=True)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _serve(listener: socket.socket, process: subprocess.Popen[bytes], said: bytes) -> None:
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    users = 0
    until = time.monotonic() + _ALONE
    while users or time.monotonic() < until:
        for key, _ in waiting.select(1.0):
            if key.fileobj is listener:
                user, _ = listener.accept()
                user.sendall(said)
                waiting.register(user, selectors.EVENT_READ)
                users, until = users + 1, 0.0
            elif isinstance(key.fileobj, socket.socket):  # users say nothing: it has gone
                gone = key.fileobj
                waiting.unregister(gone)
                gone.close()
                users -= 1
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")


@contextmanager
def shared(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The address of the session's server, which is started by the first who asks."""
    with Path(f"{folder}/{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        user = _connect(name, folder)
        said = _heard(user) if user is not None else ""
        if not said:  # there is none, or it was just ending
            user = _started(name, folder)
            said = _heard(user)
    if user is None or not said:
        raise ServerFailed(f"{name} says nothing")
    with user:
        yield json.loads(said)


def _heard(user: socket.socket) -> str:
    with user.makefile() as stream:
        return stream.readline()


def _started(name: str, folder: Path) -> socket.socket:
    log = Path(f"{folder}/{name}.log")
    with log.open("w") as said:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "bench.servers.keeper", name, str(folder)],
            cwd=Path(__file__).resolve().parent.parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    _STARTED.append(keeper)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and keeper.poll() is None:
        if (user := _connect(name, folder)) is not None:
            return user
        time.sleep(0.05)  # not for a state of ours: for another program to come up
    keeper.kill()
    raise ServerFailed(f"{name} does not come up: {log.read_text()[-2000:]}")


def _connect(name: str, folder: Path) -> socket.socket | None:
    user = socket.socket(socket.AF_UNIX)
    try:
        user.connect(f"{folder}/{name}.sock")
    except OSError:
        user.close()
        return None
    return user


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]))
