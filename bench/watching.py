"""Looks again and again at a daemon while something is done to it: memory, backlog, the vault.

The looks are rare and cheap, because they take processor time from what is measured.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from bench.live import Daemon
from bench.measure import CommandFailed, memory_of, proportional_of
from stages.vault import layout
from stages.vault.container import FIRST_READ, Kind, parse

MEMORY_SECONDS = 0.5
_DEAR = 4  # looks between two that read proportional sizes
BACKLOG_SECONDS = 1.0
AGE_SECONDS = 0.1
AGE_POINTS = 6000
AGE_SERIES = "age, s"
_MICRO = 1_000_000
_TICK = os.sysconf("SC_CLK_TCK")


class _Looking:
    """A thread that calls ``look`` every ``seconds`` inside of ``with``."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def look(self) -> None:
        """One look."""
        raise NotImplementedError

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopped.is_set():
            self.look()
            self._stopped.wait(self._seconds)


@dataclass
class Peak:
    """Bytes. ``resident``: greatest sum over a process and its children, or the greatest
    high-water mark of one of them, if that is more; ``shared_out``: shared pages divided."""

    resident: int = 0
    shared_out: int = 0


class Memory(_Looking):
    """Peak memory of intake and of delivery, each with its children."""

    def __init__(self, daemon: Daemon, into: dict[str, Peak]):
        super().__init__(MEMORY_SECONDS)
        self._daemon = daemon
        self._looks = 0
        self.peaks = into

    def look(self) -> None:
        """See the class."""
        self._looks += 1
        for name, pids in self._daemon.processes().items():
            peak = self.peaks.setdefault(name, Peak())
            found = [memory_of(pid) for pid in pids]
            highest = [mark for _, mark in found]
            peak.resident = max(peak.resident, sum(now for now, _ in found), *highest, 0)
            if self._looks % _DEAR == 0:
                peak.shared_out = max(peak.shared_out, sum(proportional_of(pid) for pid in pids))


class Backlog(_Looking):
    """What ``status`` says of the journal meanwhile."""

    def __init__(self, daemon: Daemon):
        super().__init__(BACKLOG_SECONDS)
        self._daemon = daemon
        self.most = 0  # bytes that the journal held
        self.tracked = ""  # why writes were tracked instead, if they ever were

    def look(self) -> None:
        """See the class."""
        try:
            found = self._daemon.status()
        except CommandFailed:
            return  # a look too many, not the end of the run
        self.most = max(self.most, int(found["journal_bytes"]))
        if found["state"] == "tracking":
            self.tracked = str(found["reason"])


class Machine:
    """How busy the processors are, from one look to the next, in processors."""

    def __init__(self) -> None:
        self._before, self._at = self._look(), time.monotonic()

    def since(self) -> tuple[float, float]:
        """Processors that were idle, and that were idle while a disk was waited for."""
        now, at = self._look(), time.monotonic()
        seconds = max(at - self._at, 1e-9)
        idle, waiting = (
            (after - before) / _TICK / seconds
            for before, after in zip(self._before, now, strict=True)
        )
        self._before, self._at = now, at
        return idle, waiting

    @staticmethod
    def _look() -> tuple[int, int]:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(fields[4]), int(fields[5])


@dataclass
class Newest:
    """The newest consistent commit in a file vault: its number, and when the newest write in it
    was captured (µs)."""

    seq: int = 0
    stamp: int = 0


@dataclass
class VaultTail:
    """Follows the log of a file vault with one group by its files, as anyone could who has only
    the vault: an object has its name once it is durable, and a commit is put after its data."""

    vault: Path
    newest: Newest = field(default_factory=Newest)
    _next: int = 1
    _log: Path | None = None

    def look(self) -> Newest:
        """Read the headers of the commits that are new."""
        if self._log is None:
            groups = list((self.vault / layout.GROUPS).glob("*/log"))
            if not groups:
                return self.newest
            (self._log,) = groups
        while (data := self._head(self._next)) is not None:
            header = parse(data, str(self._next), Kind.COMMIT).header
            if header.flag("consistent"):
                self.newest = Newest(self._next, header.number("stamp"))
            self._next += 1
        return self.newest

    def _head(self, seq: int) -> bytes | None:
        assert self._log is not None
        name = layout.commit(b"", seq).rpartition("/")[2]
        try:
            with (self._log / name).open("rb", buffering=0) as file:
                return file.read(FIRST_READ)
        except OSError:
            return None


class Age(_Looking):
    """How old the newest recoverable point is: ``seconds``, one for each look.

    A look's age is now minus the capture of the newest write in the newest consistent commit; but
    never more than the time since ``began``, before which nothing was missing.
    """

    def __init__(self, tail: VaultTail):
        super().__init__(AGE_SECONDS)
        self._tail = tail
        self.began = time.time()
        self.seconds: list[float] = []
        self.looked: list[float] = []  # when, in seconds since then
        self.first = self.last = tail.look().seq

    def look(self) -> None:
        """See the class."""
        newest = self._tail.look()
        self.last = newest.seq
        now = time.time()
        self.seconds.append(now - max(newest.stamp / _MICRO, self.began))
        self.looked.append(now - self.began)

    def series(self) -> tuple[tuple[float, float], ...]:
        """Each look: seconds since the beginning, age in seconds; every nth of very many."""
        every = -(-len(self.seconds) // AGE_POINTS) or 1
        return tuple(zip(self.looked, self.seconds, strict=True))[::every]

    def figures(self) -> dict[str, float]:
        """Percentiles in seconds, and how many points were made."""
        ages = np.array(self.seconds or [0.0])
        return {
            "age_p50": float(np.percentile(ages, 50)),
            "age_p99": float(np.percentile(ages, 99)),
            "age_max": float(ages.max()),
            "points": float(self.last - self.first),
        }
