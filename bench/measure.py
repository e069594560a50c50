"""Runs a command and measures it: wall time, CPU time, peak memory of its whole process tree.

Resident memory is read from /proc every 20 ms and summed over the tree, so pages that processes
share are counted once for each of them: an upper bound. What lies between two looks is covered by
the high-water mark that the kernel keeps of each process. Every fifth look also reads proportional
sizes, which share such pages out; that is dearer and may miss a short peak.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.02  # seconds between two looks at the tree
_DEAR = 5  # looks between two that read proportional sizes
LIMIT = 3600.0  # seconds after which a command is taken to hang
_TAIL = 2000  # characters of an error output that are shown
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. ``env`` is added to this process's; ``stdout`` of None is kept with the log."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stdout: Path | None = None

    def popen(self) -> subprocess.Popen[bytes]:
        """Start it, to run beside; what it says is dropped."""
        return subprocess.Popen(
            self.argv,
            env={**os.environ, **self.env},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A finished command. Seconds; bytes; ``output`` is what it wrote to stdout.

    ``peak``: resident, summed over the tree. ``shared_out``: the same with shared pages divided.
    """

    seconds: float
    durable: float
    cpu: float
    peak: int
    shared_out: int
    code: int
    output: str
    errors: str


class CommandFailed(Exception):
    """A command ended with another code than 0."""


def run(command: Command, folder: Path) -> Run:
    """Run to the end; output goes through files in ``folder``. Everything is synced before."""
    out, err = command.stdout or folder / "stdout", folder / "stderr"
    os.sync()
    with out.open("wb") as output, err.open("wb") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        watch = Watch(process.pid, LIMIT)
        usage = _wait(process, watch)
        seconds = time.perf_counter() - started
        os.sync()
        durable = time.perf_counter() - started
    return Run(
        seconds=seconds,
        durable=durable,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=max(watch.peak, _own_peak(usage)),
        shared_out=watch.shared_out,
        code=process.returncode,
        output="" if command.stdout else out.read_text(errors="replace"),
        errors=err.read_text(errors="replace")[-_TAIL:],
    )


def checked(command: Command, folder: Path) -> Run:
    """Like ``run``; raises ``CommandFailed`` with the end of the error output."""
    done = run(command, folder)
    if done.code:
        said = (done.errors or done.output[-_TAIL:]).strip()
        raise CommandFailed(f"{' '.join(command.argv[:6])} … ended with {done.code}: {said}")
    return done


def _wait(process: subprocess.Popen[bytes], watch: Watch) -> resource.struct_rusage:
    watch.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        watch.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _own_peak(usage: resource.struct_rusage) -> int:
    """The kernel's figure for the greatest process waited for, in bytes; 0 if it says nothing.

    A child starts out with the high-water mark of the process that forked it, so a figure that is
    not above this one's own may be that.
    """
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * 1024 if usage.ru_maxrss > inherited else 0


class Watch:
    """Looks at a process and its descendants until stopped; kills them after ``limit`` seconds."""

    def __init__(self, root: int, limit: float = LIMIT):
        self.peak = 0
        self.shared_out = 0
        self._looks = 0
        self._root = root
        self._deadline = time.monotonic() + limit
        self._parents: dict[int, int] = {}
        self._highest: dict[int, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; ``peak`` is final on return."""
        self._stopped.set()
        self._thread.join()
        self.peak = max(self.peak, *self._highest.values(), 0)

    def _loop(self) -> None:
        while True:  # also the shortest command is looked at once
            self.look()
            if self._stopped.wait(INTERVAL):
                return
            if time.monotonic() > self._deadline:
                with suppress(ProcessLookupError):
                    os.killpg(self._root, signal.SIGKILL)
                return

    def look(self) -> None:
        """Add up what the tree has resident now."""
        total = 0
        tree = self._tree()
        for pid in tree:
            resident, highest = memory_of(pid)
            total += resident
            self._highest[pid] = max(highest, self._highest.get(pid, 0))
        self.peak = max(self.peak, total)
        self._looks += 1
        if self._looks % _DEAR == 0:
            self.shared_out = max(self.shared_out, sum(proportional_of(pid) for pid in tree))

    def _tree(self) -> list[int]:
        """The root and all that descend from it; parents are asked for once, when first seen."""
        alive = [int(name) for name in os.listdir(_PROC) if name.isdigit()]
        found = []
        for pid in alive:
            if pid not in self._parents:
                self._parents[pid] = parent_of(pid)
        for pid in alive:
            above = pid
            while above > 1 and above != self._root:
                above = self._parents.get(above, 0)
            if above == self._root:
                found.append(pid)
        return found


def parent_of(pid: int) -> int:
    """The parent of a process, 0 if it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes now and at most; zeros for a process that has ended."""
    found = _sizes(_PROC / str(pid) / "status")
    return found.get("VmRSS", 0), found.get("VmHWM", 0)


def proportional_of(pid: int) -> int:
    """Resident bytes with shared pages divided; 0 if it has ended or is not ours to look at."""
    return _sizes(_PROC / str(pid) / "smaps_rollup").get("Pss", 0)


def _sizes(path: Path) -> dict[str, int]:
    """Lines of the form ``Name: 12 kB``, in bytes; nothing for a process that has ended."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    parted = (line.split() for line in lines)
    return {words[0][:-1]: int(words[1]) * 1024 for words in parted if words[-1:] == ["kB"]}
