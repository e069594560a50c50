"""What a guest does to a disk, done by fio over NBD, and what fio says of it; and reading all of it
with nbdcopy, over as many connections as that opens by itself.

Writes carry fresh data that halves when it is compressed, made while they are sent: fio pays for
that with processor time, whatever it talks to, so fast servers look slower than they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import CommandFailed

_GRACE = 240.0  # seconds that fio may take longer than it was told
_MICRO = 1e3  # ns
_CHUNK = 16 << 20
_PIECE = 64 << 10  # bytes of a write that makes a disk
LOG_MS = 100  # of a point in a series
POINTS = 1200  # of a series at most: neighbours are averaged beyond
RATE_SERIES, LATENCY_SERIES = "rate, MiB/s", "latency, µs"
_LOG = "series"
_SERIES = ((RATE_SERIES, "bw", 1 / 1024), (LATENCY_SERIES, "clat", 1 / 1e3))

Series = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Load:
    """``block``: bytes of a request, or a range like ``4k-64k``; ``rate``: bytes/s, 0 without
    limit; ``flush``: each write is followed by one. ``copy``: by nbdcopy, all of the disk again and
    again."""

    name: str
    block: str
    depth: int
    reads: bool = False
    flush: bool = False
    rate: int = 0
    copy: bool = False

    def argv(self, uri: str, size: int, seconds: float, seed: int) -> tuple[str, ...]:
        """fio's command line for a disk of ``size`` bytes: an NBD address, or the path of a file,
        which is then opened as any program does, with the page cache between."""
        blocks = f"--bsrange={self.block}" if "-" in self.block else f"--bs={self.block}"
        where = ("--ioengine=nbd", f"--uri={uri}")
        if not uri.startswith("nbd"):
            path = uri.replace(":", "\\:")  # else fio takes it for several names
            where = ("--ioengine=libaio", f"--filename={path}")
        data = ("--buffer_compress_percentage=50", "--refill_buffers")
        return (
            "fio",
            "--name=load",
            *where,
            f"--rw={'randread' if self.reads else 'randwrite'}",
            blocks,
            f"--iodepth={self.depth}",
            f"--size={size}",
            "--time_based",
            f"--runtime={max(LOG_MS, round(seconds * 1000))}ms",
            "--norandommap",
            f"--randseed={seed}",
            *(() if self.reads else data),
            *(("--fsync=1",) if self.flush else ()),
            *((f"--rate={self.rate}",) if self.rate else ()),
            f"--write_bw_log={_LOG}",
            f"--write_lat_log={_LOG}",
            f"--log_avg_msec={LOG_MS}",
            "--output-format=json",
        )


@dataclass(frozen=True, slots=True)
class Done:
    """What fio measured. Seconds; bytes; latencies in µs from handing a request over to its
    answer; ``flush_`` those of flushes, 0 if there were none. ``series``: means of each 100 ms."""

    seconds: float
    requests: int
    size: int
    p50: float
    p99: float
    flush_p99: float = 0.0
    series: Mapping[str, Series] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    def figures(self) -> dict[str, float]:
        """By the names of columns."""
        mib = self.size / self.seconds / (1 << 20) if self.seconds else 0.0
        found = {"rate": self.rate, "mib": mib}
        if self.p99:
            found |= {"p50": self.p50, "p99": self.p99}
        return found | ({"flush_p99": self.flush_p99} if self.flush_p99 else {})


COLUMNS = (
    ("rate", "a second"),
    ("mib", "MiB/s"),
    ("p50", "µs p50"),
    ("p99", "µs p99"),
    ("flush_p99", "flush p99"),
)


def put(load: Load, uri: str, size: int, seconds: float, folder: Path, seed: int) -> Done:
    """Run a load. Raises ``CommandFailed`` if fio does, or if a request was answered wrongly."""
    if load.copy:
        return _copied(load, uri, size, seconds)
    argv = load.argv(uri, size, seconds, seed)
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"fio ({load.name}) did not end: the server hangs") from None
    if done.returncode:
        said = f"{done.stderr.strip()} {done.stdout.strip()}"[-500:]
        raise CommandFailed(f"fio ({load.name}) ended with {done.returncode}: {said}")
    return replace(parsed(done.stdout), series=_logged(folder))


def _logged(folder: Path) -> dict[str, Series]:
    """What fio wrote of each moment; its files are removed."""
    found = {}
    for name, kind, unit in _SERIES:
        file = folder / f"{_LOG}_{kind}.1.log"
        if file.exists() and (points := series_of(file.read_text(), unit)):
            found[name] = points
    for file in folder.glob(f"{_LOG}_*.log"):
        file.unlink()
    return found


def series_of(log: str, unit: float) -> Series:
    """Points (seconds, value times ``unit``) of a log of fio: lines ``ms, value, direction, …``.

    Neighbours are averaged where there are more than ``POINTS``. Raises ``CommandFailed``.
    """
    try:
        rows = [[float(one) for one in line.split(",")[:2]] for line in log.splitlines() if line]
    except ValueError as error:
        raise CommandFailed(f"fio's log is not understood: {error}") from None
    rows.sort(key=lambda row: row[0])
    together = -(-len(rows) // POINTS) or 1
    return tuple(
        (
            sum(at for at, _ in part) / len(part) / 1e3,
            sum(value for _, value in part) / len(part) * unit,
        )
        for begin in range(0, len(rows), together)
        for part in [rows[begin : begin + together]]
    )


def _copied(load: Load, uri: str, size: int, seconds: float) -> Done:
    request = int(load.block)
    began, copies = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        argv = ("nbdcopy", f"--request-size={request}", uri, "null:")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_GRACE, check=False)
        if done.returncode:
            raise CommandFailed(f"nbdcopy ended with {done.returncode}: {done.stderr[-500:]}")
        copies += 1
    took = time.monotonic() - began
    return Done(took, copies * size // request, copies * size, 0.0, 0.0)


def parsed(output: str) -> Done:
    """Read fio's report, which may have lines before it. Raises ``CommandFailed``."""
    try:
        (job,) = json.loads(output[output.index("{") :])["jobs"]
        found = job["write"] if job["write"]["total_ios"] else job["read"]
        flushes = job["sync"].get("lat_ns", {})
        return Done(
            seconds=found["runtime"] / 1e3,
            requests=found["total_ios"],
            size=found["io_bytes"],
            p50=_percentile(found["clat_ns"], "50.000000"),
            p99=_percentile(found["clat_ns"], "99.000000"),
            flush_p99=_percentile(flushes, "99.000000"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"fio's report is not understood: {error!r}") from None


def _percentile(found: Mapping[str, Any], which: str) -> float:
    return float(found.get("percentile", {}).get(which, 0)) / _MICRO


def make_disk(path: Path, size: int, seed: int) -> Path:
    """A disk without holes, every block unlike all others and compressible to about a half.

    Written as a guest would, in pieces: ext4 of late kernels keeps what one large write brought in
    one folio of the page cache, and then walks through all buffers of that folio for each 4 KiB
    that is written into it. Disks that are held against each other must all be made by this.
    """
    dice = np.random.default_rng(seed)
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, _CHUNK):
            blocks = np.zeros((min(_CHUNK, size - at) // 4096, 4096), np.uint8)
            blocks[:, ::2] = dice.integers(0, 256, (len(blocks), 2048), np.uint8)
            data = blocks.tobytes()
            view = memoryview(data)
            for piece in range(0, len(view), _PIECE):
                file.write(view[piece : piece + _PIECE])
        os.fsync(file.fileno())  # else whoever flushes first pays for all of it
    return path
