"""One daemon with many tiny machines: how soon they are protected, and what they cost when idle."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.live import Daemon, LiveBackstay, used
from bench.measure import CommandFailed, memory_of, proportional_of
from bench.subjects import BackstayCopy
from bench.told import told_of_machines

MACHINE_BYTES = 1 << 20  # of the disk of each, a part of it with content
_CONTENT = 64 << 10
_LOOK_SECONDS = 0.5  # at intake; the supervisor is asked once intake says that all is well there
_TOLD_SECONDS = 1.0  # each look makes the supervisor tell of all machines, which is not free
_PATIENCE = 600.0
_REST_SECONDS = 25.0  # until what a start leaves to be done is done: regions cool in two cycles


@dataclass
class Started:
    """Seconds from the command: until intake serves all disks, until everything they hold is in the
    vault, and until the supervisor says of every machine that it replicates; processor seconds of
    all processes until then."""

    serving: float = 0.0
    captured: float = 0.0
    replicating: float = 0.0
    cpu: float = 0.0


@dataclass
class Idle:
    """Processors in use while nothing is written, and bytes resident by process."""

    share: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    resident: dict[str, int] = field(default_factory=dict)
    shared_out: dict[str, int] = field(default_factory=dict)


class Many:
    """A folder with ``count`` machines and the daemon that serves them."""

    def __init__(self, folder: Path, count: int, ours: LiveBackstay | None = None):
        self.count = count
        self.folder = folder
        image = folder / "image"
        copy = (ours or LiveBackstay()).open(folder, image)
        assert isinstance(copy, BackstayCopy)
        self._copy = copy
        self._machines()
        self.daemon: Daemon

    def _machines(self) -> None:
        settings = self._copy.settings(None)
        machines = {}
        (self.folder / "d").mkdir()
        for number in range(self.count):
            path = self.folder / "d" / f"{number}.img"
            with path.open("wb") as disk:
                disk.write(os.urandom(_CONTENT))
                disk.truncate(MACHINE_BYTES)
            listen = f"unix:{self.folder}/d/{number}.sock"
            disks = {"root": {"path": str(path), "capture": "nbd", "listen": listen}}
            machines[f"m{number}"] = {"vault": "vault", "disks": disks}
        settings["machines"] = machines
        self._copy.config.write_text(json.dumps(settings))

    @contextmanager
    def started(self) -> Iterator[Started]:
        """Start, wait for all to replicate; killed at the end unless it was ended."""
        self.daemon = Daemon(self._copy, self.folder / "unused.sock")
        began, found = time.monotonic(), Started()
        try:
            self.daemon.begin()
            found.serving = time.monotonic() - began
            while not self._captured():
                self._wait(began, _LOOK_SECONDS)
            found.captured = time.monotonic() - began
            while self._states() != ["replicating"] * self.count:
                self._wait(began, _TOLD_SECONDS)
            found.replicating = time.monotonic() - began
            found.cpu = sum(used(pid) for pids in self.processes().values() for pid in pids)
            yield found
        finally:
            self.daemon.kill()

    def end(self) -> None:
        """As a service manager does. Raises ``CommandFailed``."""
        self.daemon.end()

    def idle(self, seconds: float) -> Idle:
        """Nobody writes, and nobody asks."""
        time.sleep(min(_REST_SECONDS, seconds))
        before = {name: sum(map(used, pids)) for name, pids in self.processes().items()}
        began = time.monotonic()
        time.sleep(seconds)
        lasted, found = time.monotonic() - began, Idle()
        for name, pids in self.processes().items():
            found.shares[name] = (sum(map(used, pids)) - before.get(name, 0.0)) / lasted
            found.resident[name] = sum(memory_of(pid)[0] for pid in pids)
            found.shared_out[name] = sum(map(proportional_of, pids))
        found.share = sum(found.shares.values())
        return found

    def processes(self) -> dict[str, list[int]]:
        """The supervisor's, intake's and delivery's."""
        return {"supervisor": [self.daemon.parent], **self.daemon.processes()}

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self.folder)

    @staticmethod
    def _wait(began: float, seconds: float) -> None:
        if time.monotonic() - began > _PATIENCE:
            raise CommandFailed(f"not all machines replicate after {_PATIENCE:g} s")
        time.sleep(seconds)

    def _captured(self) -> bool:
        """Intake says of all that no gap is open, and that all they hold is in the vault."""
        found = self.daemon.machines().values()
        return all(
            one["state"] == "replicating" and one["committed"] >= one["head"] for one in found
        )

    def _states(self) -> list[str] | None:
        """Of all machines, as the API tells them; None while it does not answer."""
        found = told_of_machines(self.daemon.state)
        return None if found is None else [str(one["state"]) for one in found]
