"""Servers that a guest writes through: Backstay as people run it, and nbdkit as a yardstick.

Each serves a disk image on a Unix socket and is a process, or several, of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from bench.measure import CommandFailed, checked, parent_of
from bench.subjects import DISK, MACHINE, Backstay, BackstayCopy
from pipeline.daemon.link_client import IntakeGone, command
from stages.errors import BackstayError

NBDKIT = "nbdkit file"
NEEDS = ("fio", "nbdkit", "nbdcopy")
PATIENCE = 900.0  # seconds for something to be shipped or to end; only trouble takes longer
_LOOK = 0.02  # seconds between two looks
_TICK = os.sysconf("SC_CLK_TCK")


class Serving(ABC):
    """A disk being served. ``uri`` for NBD clients."""

    uri: str

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process that answers guests."""

    def cpu(self) -> float:
        """Processor seconds that it has used."""
        return used(self.pid)

    @abstractmethod
    def settle(self) -> None:
        """Wait until nothing that was written makes work any more."""


class NbdkitServing(Serving):
    """One process."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path):
        self._process = process
        self.uri = f"nbd+unix:///{DISK}?socket={socket}"

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def settle(self) -> None:
        """It does no work of its own."""


@contextmanager
def nbdkit(image: Path) -> Iterator[NbdkitServing]:
    """The file plugin with its defaults. Raises ``CommandFailed``."""
    with tempfile.TemporaryDirectory(prefix="bs-") as short:
        socket = Path(short, "s")
        process = subprocess.Popen(
            ["nbdkit", "--foreground", "--unix", str(socket), "file", str(image)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _until(lambda: socket.exists() or process.poll() is not None, "nbdkit: listen")
            if process.poll() is not None:
                raise CommandFailed(f"nbdkit ended with {process.returncode}")
            yield NbdkitServing(process, socket)
        finally:
            process.kill()
            process.wait()


class LiveBackstay(Backstay):
    """``backstay run`` on one disk, with a vault in a folder."""

    @contextmanager
    def serve(
        self, folder: Path, image: Path, pipeline: Mapping[str, Any] | None = None
    ) -> Iterator[Daemon]:
        """Serve ``image`` until the block ends; replicating already. Raises ``CommandFailed``."""
        copy = self.open(folder, image)
        assert isinstance(copy, BackstayCopy)
        with tempfile.TemporaryDirectory(prefix="bs-") as short:
            socket = Path(short, "s")
            settings = copy.settings(pipeline)
            disk = {"path": str(image), "capture": "nbd", "listen": f"unix:{socket}"}
            settings["machines"][MACHINE]["disks"] = {DISK: disk}
            copy.config.write_text(json.dumps(settings))
            daemon = self.daemon(copy, socket)
            try:
                daemon.begin()
                daemon.settle()
                yield daemon
            finally:
                daemon.kill()

    def daemon(self, copy: BackstayCopy, socket: Path) -> Daemon:
        """The processes that serve it, not begun."""
        return Daemon(copy, socket)


class Daemon(Serving):
    """The processes of ``backstay run``: parent, intake, delivery."""

    def __init__(self, copy: BackstayCopy, socket: Path):
        self.copy = copy
        self.uri = f"nbd+unix:///{DISK}?socket={socket}"
        self.state = copy.folder / "state"
        self._intake = 0
        self._said: deque[str] = deque(maxlen=50)
        self._serving = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Intake's."""
        return self._intake

    def begin(self) -> None:
        """Start, and wait until it serves. Raises ``CommandFailed``."""
        run = self.copy.command("run", str(self.copy.config), "--drain", str(int(PATIENCE)))
        self._process = subprocess.Popen(
            run.argv,
            env={**os.environ, **run.env},
            cwd=run.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._hear, args=(self._process,), daemon=True).start()
        if not self._serving.wait(PATIENCE) or self._process.poll() is not None:
            raise self._failed("it does not serve")
        self._intake = int(self._ask()["pid"])

    def status(self) -> dict[str, Any]:
        """What intake says of the machine. Raises ``CommandFailed``."""
        found: dict[str, Any] = self._ask()["machines"][MACHINE]
        return found

    def machines(self) -> dict[str, dict[str, Any]]:
        """What intake says of all machines. Raises ``CommandFailed``."""
        return dict(self._ask()["machines"])

    def settle(self) -> None:
        """Wait until everything written is in the vault and no gap is open."""

        def settled() -> bool:
            now = self.status()
            return bool(now["state"] == "replicating" and now["committed"] >= now["head"])

        _until(settled, "backstay: ship everything")

    def caught_up(self, position: list[int]) -> None:
        """Wait until everything before ``position`` is in the vault."""
        _until(lambda: bool(self.status()["committed"] >= position), "backstay: catch up")

    @property
    def delivery(self) -> int:
        """The process number of delivery as it is now; 0 if it is being started."""
        return next(
            (pid for pid in self._below(self.parent) if "delivery_main" in _command(pid)), 0
        )

    def processes(self) -> dict[str, list[int]]:
        """Intake's and delivery's processes, their children included."""
        delivery = self.delivery
        return {
            "intake": [self._intake, *self._below(self._intake)],
            "delivery": [delivery, *self._below(delivery)] if delivery else [],
        }

    @contextmanager
    def delivery_stopped(self) -> Iterator[None]:
        """Delivery takes no processor meanwhile."""
        stopped = self.processes()["delivery"]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def vault_away(self) -> Iterator[None]:
        """The vault's folder is not where it was, as when a mount is gone."""
        here = self.copy.repository
        away = here.rename(here.with_name("away"))
        try:
            yield
        finally:
            away.rename(here)

    def renew(self) -> None:
        """As someone does who knows that the vault is back: delivery begins anew at once."""
        os.kill(self.parent, signal.SIGHUP)

    def end(self) -> None:
        """As a service manager does; everything is shipped. Raises ``CommandFailed``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(PATIENCE) or any("not all was shipped" in one for one in self._said):
            raise self._failed("it did not end well")

    def kill(self) -> None:
        """Leave no process behind."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        with suppress(ProcessLookupError):
            if self._intake and "intake_main" in _command(self._intake):
                os.kill(self._intake, signal.SIGKILL)
        _until(lambda: "intake_main" not in _command(self._intake), "backstay: end")

    def restored(self, target: Path) -> Path:
        """The newest point, brought back below ``target``. Raises ``CommandFailed``."""
        checked(self.copy.restore(target), self.copy.folder)
        return self.copy.restored(target)

    @property
    def parent(self) -> int:
        """The supervisor's process number."""
        assert self._process is not None
        return self._process.pid

    def _hear(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as said:
            for line in said:
                self._said.append(line.strip())
                if "intake: serving" in line:
                    self._serving.set()
        self._serving.set()  # it has ended: nobody need wait any more

    def _ask(self) -> dict[str, Any]:
        try:
            return trio.run(command, f"{self.state}/intake.sock", "status")
        except (IntakeGone, BackstayError) as error:
            raise self._failed(str(error)) from None

    def _failed(self, why: str) -> CommandFailed:
        return CommandFailed(f"backstay run: {why}: {' / '.join(list(self._said)[-5:])}")

    @staticmethod
    def _below(root: int) -> list[int]:
        """Children and theirs."""
        found, above = [], {root}
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            if parent_of(pid) in above:
                above.add(pid)
                found.append(pid)
        return found


def used(pid: int) -> float:
    """Processor seconds of a process; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _command(pid: int) -> str:
    """A process's command line, empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _until(good: Callable[[], bool], what: str) -> None:
    """Look until it is so. Raises ``CommandFailed``."""
    until = time.monotonic() + PATIENCE
    while not good():
        if time.monotonic() > until:
            raise CommandFailed(f"{what}: not within {PATIENCE:g} s")
        time.sleep(_LOOK)


def missing(ours: LiveBackstay) -> str:
    """What is not installed that every live scenario needs."""
    found = (ours.missing(), *(need for need in NEEDS if shutil.which(need) is None))
    return ", ".join(name for name in found if name)
