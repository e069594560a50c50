"""An exporter as a process of its own, ended as people end it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.support import KEYS, Place

PATIENCE = 60.0  # seconds for a process to end: never reached unless something is wrong


@dataclass
class Exporter:
    """A running ``backstay export``; ``fields`` is the document it printed when ready."""

    process: subprocess.Popen[str]
    fields: dict[str, Any]
    socket: Path

    def uri(self, disk: str = "root") -> str:
        """Where clients find a disk."""
        return str(self.fields["exports"][disk])

    def heard(self, word: str) -> str:
        """Wait for a line with ``word`` on its standard error."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if word in line:
                return line
        raise AssertionError(f"it ended without saying {word!r}")

    def kill(self) -> None:
        """As a power failure does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """As a person or a service manager does: it leaves nothing behind and exits with 0."""
        self.process.send_signal(how)
        _, err = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, err
        assert not self.socket.exists()


@contextmanager
def started(
    place: Place, *words: str, prefix: Sequence[str] = (), socket: Path | None = None
) -> Iterator[Exporter]:
    """A command that serves disks, on a socket of that place, until the block ends."""
    socket = socket or place / "sock"
    listen = () if "--listen" in words else ("--listen", f"unix:{socket}")
    whole = (*words, *listen, "--json")
    process = place.start(*whole, prefix=prefix) if prefix else place.fork(*whole)
    try:
        yield Exporter(process, _ready(process), socket)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def exporting(place: Place, folder: Path, *arguments: str) -> Iterator[Exporter]:
    """Serve ``web1`` on a socket in ``folder`` until the block ends."""
    with started(place, "export", "web1", *KEYS, *arguments, socket=folder / "sock") as found:
        yield found


@contextmanager
def served(place: Place, folder: Path, *arguments: str) -> Iterator[Exporter]:
    """The same, ended cleanly, and that is checked."""
    with exporting(place, folder, *arguments) as exporter:
        yield exporter
        exporter.end()


def _ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON document it prints once it accepts connections."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    _, err = process.communicate()
    raise AssertionError(f"it ended: {err}")
