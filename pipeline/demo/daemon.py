"""The daemon of the demonstration: ``backstay run`` with its three processes."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import trio

from pipeline.daemon.link_client import command
from pipeline.daemon.names import INTAKE_SOCKET
from pipeline.demo.commands import Commands
from stages.errors import BackstayError

_PATIENCE = 120.0  # seconds to serve, to replicate, to stop
_PROCESSES = 3  # supervisor, intake, delivery
_LOOK_SECONDS = 0.02


class Daemon:
    """``backstay run CONFIG`` in the folder of ``commands``. What it says is in daemon.log."""

    def __init__(self, commands: Commands, config: Path, machine: str):
        self._commands = commands
        self._config = config
        self._machine = machine
        self._log = commands.folder / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = 0  # bytes of the log that belong to earlier lives

    def start(self) -> None:
        """Return when it serves and ships. Raises what it says if it does not."""
        self._heard = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._commands.start("run", str(self._config), log=self._log)
        deadline = time.monotonic() + _PATIENCE
        while "intake: serving" not in self._said() or len(self._commands.processes()) < _PROCESSES:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed("it does not serve")
            time.sleep(_LOOK_SECONDS)

    def status(self) -> dict[str, Any]:
        """What intake says of the machine."""
        path = f"{self._commands.folder}/state/{INTAKE_SOCKET}"
        answer = trio.run(command, path, "status")
        return dict(answer["machines"][self._machine])

    def replicated(self) -> bool:
        """Everything that was on the disk is in the stream, and points are consistent."""
        return bool(self.status()["state"] == "replicating")

    def until_replicated(self) -> None:
        """Wait for that."""
        deadline = time.monotonic() + _PATIENCE
        while not self.replicated():
            if time.monotonic() > deadline:
                raise self._failed("the disk is not replicated")
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """SIGTERM: in order, everything shipped."""
        assert self._process is not None  # noqa: S101
        self._process.send_signal(signal.SIGTERM)
        code = self._commands.ended(self._process, _PATIENCE)
        if code or "not all was shipped" in self._said():
            raise self._failed(f"it did not stop in order ({code})")

    def _said(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._heard)
            return log.read().decode(errors="replace")

    def _failed(self, what: str) -> BackstayError:
        tail = self._said()[-2000:].strip()
        return BackstayError(
            f"{what}: {tail}" if tail else what,
            operation="demo",
            subject=f"backstay run {self._config}",
        )
