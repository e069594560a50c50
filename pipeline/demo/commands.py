"""What the demonstration runs: backstay's own commands and the file system's tools.

Each is a process group of its own, so that Ctrl-C reaches only the demonstration, which then ends
it. ``Commands.end`` leaves none of them behind, nor what they started in this folder.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stages import errors
from stages.errors import BackstayError, MissingTool

_LEASHED = "pipeline.demo.leashed"
_MODULES = (_LEASHED, "pipeline.daemon.intake_main", "pipeline.daemon.delivery_main")
_SOURCE = str(Path(__file__).resolve().parent.parent.parent)
_LONGEST = 300.0  # seconds for any one command
_END_SECONDS = 20.0  # for a process to be gone after SIGKILL
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of backstay: its number and the module it runs."""

    pid: int
    module: str


class Commands:
    """Commands that work in ``folder``, an absolute path."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def backstay(
        self, *arguments: str, folder: Path | None = None, environment: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Run a command that has to succeed; its result. Raises what it failed with."""
        process = self._begin(
            [*arguments, "--json"], folder, environment, subprocess.PIPE, subprocess.PIPE
        )
        out, said = process.communicate(timeout=_LONGEST)
        self._running.remove(process)
        if process.returncode:
            raise failure(said.decode(errors="replace"), " ".join(arguments))
        return dict(json.loads(out))

    def start(
        self,
        *arguments: str,
        log: Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command that goes on; what it says is added to ``log``."""
        with log.open("ab") as said:
            return self._begin(list(arguments), folder, environment, said, said)

    def ended(self, process: subprocess.Popen[bytes], patience: float) -> int:
        """Wait for the end of what was started; its exit code."""
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            words = " ".join(map(str, process.args[5:]))  # type: ignore[index]
            raise BackstayError(
                f"goes on after {patience:g} s", operation="demo", subject=f"backstay {words}"
            ) from None
        self._running.remove(process)
        return code

    def processes(self) -> list[Process]:
        """What runs of backstay in this folder, whoever started it."""
        return sorted(_processes(self.folder), key=lambda each: _MODULES.index(each.module))[::-1]

    def kill(self, processes: Sequence[Process]) -> None:
        """SIGKILL to all of them, and wait until they are gone."""
        with _held(processes) as descriptors:
            for descriptor in descriptors:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            deadline = time.monotonic() + _END_SECONDS
            for descriptor in descriptors:
                left = max(0.0, deadline - time.monotonic())
                if not select.select([descriptor], [], [], left)[0]:
                    raise BackstayError("a killed process does not end", operation="demo")
        for process in [each for each in self._running if each.poll() is not None]:
            self._running.remove(process)

    def end(self) -> None:
        """End whatever still runs; signals wait meanwhile."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            for process in self._running:
                process.kill()
            while found := self.processes():  # one of them may have started another just now
                self.kill(found)
            for process in self._running:
                process.communicate(timeout=_END_SECONDS)
            self._running.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _begin(
        self,
        arguments: list[str],
        folder: Path | None,
        environment: dict[str, str] | None,
        out: int | IO[bytes],
        said: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        env = (dict(os.environ) if environment is None else environment) | {"PYTHONPATH": _SOURCE}
        process = subprocess.Popen(
            [sys.executable, "-m", _LEASHED, str(os.getpid()), *arguments],
            cwd=folder or self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=said,
            process_group=0,
        )
        self._running.append(process)
        return process


class Tools:
    """The file system's tools. Raises ``MissingTool`` if one is not installed."""

    def __init__(self) -> None:
        self._paths = {name: _tool(name) for name in ("mkfs.ext4", "debugfs", "e2fsck")}

    def mkfs(self, tree: Path, image: Path) -> None:
        """Make an ext4 file system that holds the files below ``tree``."""
        _call(self._paths["mkfs.ext4"], "-q", "-F", "-d", str(tree), str(image))

    def debugfs(
        self, image: Path, said: Sequence[str], folder: Path, *, write: bool = False
    ) -> None:
        """Let debugfs do something in an image; paths of ours start from ``folder``. It does not
        tell whether it could: look."""
        words = [self._paths["debugfs"], *(["-w"] if write else []), "-f", "-", str(image)]
        _call(*words, folder=folder, told="".join(f"{line}\n" for line in said))

    def check(self, image: Path) -> None:
        """e2fsck, which finds nothing to repair."""
        _call(self._paths["e2fsck"], "-fn", str(image))

    def copy(self, one: Path, other: Path) -> None:
        """A sparse copy."""
        _call("cp", "--sparse=always", str(one), str(other))


def failure(said: str, command: str) -> BackstayError:
    """The error that a command ended with, as its own."""
    subject = f"backstay {command}"
    try:
        fields = json.loads(said)
        kind = getattr(errors, fields["error"])
        failed = kind(fields["message"], operation="demo", subject=subject, hint=fields["hint"])
    except (ValueError, KeyError, TypeError, AttributeError):
        failed = None
    if isinstance(failed, BackstayError):
        return failed
    return BackstayError(said.strip(), operation="demo", subject=subject)


def _call(*command: str, folder: Path | None = None, told: str = "") -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        input=told.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_LONGEST,
        check=False,
        process_group=0,
    )
    if done.returncode:
        text = done.stdout.decode(errors="replace").strip()
        raise BackstayError(text, operation="demo", subject=" ".join(command))


def _tool(name: str) -> str:
    """Where a file system tool is; Debian keeps them out of an ordinary user's PATH."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise MissingTool(
            "is not installed", operation="demo", subject=name, hint="apt install e2fsprogs"
        )
    return path


def _processes(folder: Path) -> Iterator[Process]:
    below = os.fsencode(folder) + b"/"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        # python -m MODULE …; paths of ours are given whole
        module = words[2].decode(errors="replace") if len(words) > 2 else ""
        if module in _MODULES and any(
            word.startswith((below, b"unix:" + below)) for word in words[3:]
        ):
            yield Process(int(entry.name), module)


@contextmanager
def _held(processes: Sequence[Process]) -> Iterator[list[int]]:
    """Descriptors of processes, those that have ended left out."""
    descriptors: list[int] = []
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(process.pid))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
