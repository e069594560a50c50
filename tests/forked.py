"""Processes of the program without the time of its imports: forked by one that has made them.

A start of the daemon imports for more than a second of a processor, and tests start hundreds. Here
the program is imported once for each process of the tests; what is forked then is a process of its
own in all else: number, signals, files, folder, environment, exit code. Its intake and delivery are
started as ever. That the program starts by itself is shown where ``Place.start`` is used.

``python -m tests.forked FD`` is the one that forks. An order is a JSON document with three file
descriptors on that socket: ``{"entry", "argv", "cwd", "env"}``, answered with the process number;
or ``{"bury": PID}``, answered with how that one ended.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
_MESSAGE = 1 << 17
_PATIENCE = 60.0  # seconds
# What the commands below import when they run, of the program and of others.
_IMPORTED = (
    "cryptography.x509",
    "pipeline.api.server",
    "pipeline.cli.export",
    "pipeline.cli.failover",
    "pipeline.cli.live",
    "pipeline.cli.run",
    "pipeline.cli.site",
    "pipeline.serving",
    "pipeline.site.certificates",
    "pipeline.site.server",
    "pipeline.supervisor.notify",
    "pipeline.supervisor.process",
    "stages.system",
    "tests.supervisor.host",
)


class Forked(subprocess.Popen[str]):
    """A process as ``subprocess.Popen`` with ``text=True`` makes them. ``entry``: "backstay", whose
    arguments are ``argv``, or "host", the supervisor of ``tests.supervisor``. ``stdout`` and
    ``stderr`` are pipes, unless they go into files."""

    def __init__(
        self,
        entry: str,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ):
        self.args = [entry, *argv]
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None
        self._said: dict[str, str] = {}
        self._readers: list[threading.Thread] = []
        if stdin == subprocess.PIPE:
            reading, writing = os.pipe()
            self.stdin = os.fdopen(writing, "w")
        else:
            reading = os.open(os.devnull, os.O_RDONLY)
        self.stdout, out = _written(stdout)
        self.stderr, err = _written(stderr)
        theirs = (reading, out, err)
        order = {"entry": entry, "argv": list(argv), "cwd": str(cwd), "env": dict(env)}
        try:
            self.pid = int(_forker().ask(order, theirs))
        finally:
            for each in theirs:
                os.close(each)
        self._end = os.pidfd_open(self.pid)

    def __del__(self, *_: object) -> None:
        """It may go on, as its tests want it."""

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(_forker().ask({"bury": self.pid}))
            os.close(self._end)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def communicate(
        self,
        input: str | None = None,  # noqa: A002 - as in the class that this is one of
        timeout: float | None = None,
    ) -> tuple[str, str]:
        """What was said that nobody has read yet; said again if it is called again."""
        assert not input
        end = None if timeout is None else time.monotonic() + timeout
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.close()
        if not self._readers:
            for name, file in (("out", self.stdout), ("err", self.stderr)):
                if file is not None:
                    thread = threading.Thread(target=self._read, args=(name, file), daemon=True)
                    thread.start()
                    self._readers.append(thread)
        for thread in self._readers:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return self._said.get("out", ""), self._said.get("err", "")

    def _read(self, name: str, file: IO[str]) -> None:
        with file:
            self._said[name] = file.read()


def _written(file: IO[bytes] | None) -> tuple[IO[str] | None, int]:
    """Our end, and theirs: of a pipe, unless it goes into a file."""
    if file is not None:
        return None, os.dup(file.fileno())
    reading, writing = os.pipe()
    return os.fdopen(reading), writing


class _Forker:
    """The process that forks, and its end of the socket."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def ask(self, order: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(order).encode()], list(descriptors))
            return json.loads(self._socket.recv(_MESSAGE))

    def close(self) -> None:
        self._socket.close()
        self._process.wait(_PATIENCE)


@functools.cache
def _forker() -> _Forker:
    return _Forker()


def end() -> None:
    """At the end of the tests: who forks goes."""
    if _forker.cache_info().currsize:
        _forker().close()
        _forker.cache_clear()


def _serve(orders: socket.socket) -> dict[str, Any] | None:
    """Returns in each child, with its order; and in this process at the end of its input."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, _MESSAGE, 3)
        if not data:
            return None
        order: dict[str, Any] = json.loads(data)
        if "bury" in order:
            _, status = os.waitpid(order["bury"], 0)
            orders.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if not pid:
            orders.close()
            for number, each in enumerate(descriptors):
                os.dup2(each, number)
                os.close(each)
            return order
        for each in descriptors:
            os.close(each)
        orders.send(str(pid).encode())


def _carry_out(order: dict[str, Any]) -> None:
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    if order["entry"] == "host":
        import trio

        from tests.supervisor import host

        trio.run(host.main, order["argv"][0])
    else:
        from pipeline.cli.main import main

        sys.argv = ["backstay", *order["argv"]]
        main(order["argv"])


if __name__ == "__main__":
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # what nobody changes is not copied for each
    if (mine := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _carry_out(mine)
