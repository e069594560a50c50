"""How busy this machine is, and how much room the state folder has. Linux: from ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.health.facts import DaemonFacts


def _proc(name: str) -> str:
    return Path("/proc", name).read_text()


@dataclass
class HostSampler:
    """``read``: the text of a file below ``/proc``. What cannot be read is not known."""

    state: str
    read: Callable[[str], str] = _proc
    _before: tuple[int, int] | None = None

    def sample(self) -> DaemonFacts:
        """As it is now; the processors' share since the last sample. Blocks: call it in a thread,
        since the state folder's disk may hang."""
        free = total = None
        try:
            found = os.statvfs(self.state)
            free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        except OSError:
            pass
        return DaemonFacts(free, total, self._cpu(), self._memory())

    def _cpu(self) -> float | None:
        try:
            numbers = [int(word) for word in self.read("stat").split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        if len(numbers) < 5:
            return None
        idle, total = numbers[3] + numbers[4], sum(numbers)  # idle and waiting for disks
        before, self._before = self._before, (idle, total)
        if before is None or total <= before[1]:
            return None
        return min(1.0, max(0.0, 1 - (idle - before[0]) / (total - before[1])))

    def _memory(self) -> float | None:
        try:
            rows = dict(line.split(":", 1) for line in self.read("meminfo").splitlines())
            total, free = (int(rows[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return 1 - free / total if total else None
