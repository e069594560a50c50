"""The five stages of a run over disks at rest: read, cut into segments, packed, sealed, shipped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pipeline.config.model import Capture, Config
from pipeline.config.model import Machine as MachineConfig
from pipeline.packing import STREAM_BYTES, build_packing
from pipeline.state import Identity
from stages.cache.passthrough import PassThrough
from stages.capture.examiner import Examiners, InlineExaminers
from stages.capture.pool import ProcessExaminers
from stages.capture.scan import Scan
from stages.capture.source import ScanDisk
from stages.channel import Channel
from stages.compress.stage import Compress
from stages.encrypt.stage import Encrypt
from stages.model import StreamItem
from stages.ports import Machine
from stages.ship.session import LogSession
from stages.ship.stage import Ship
from stages.stage import Stage, StageStatistics

_SMALL = 128 << 20  # below this much allocated disk, helper processes cost more than they save


@dataclass(frozen=True, slots=True)
class Line:
    """The five stages of one run, joined by channels, in order."""

    scan: Scan
    cache: PassThrough
    compress: Compress
    encrypt: Encrypt
    ship: Ship
    channels: tuple[Channel[Any], ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In the order of the data."""
        return (self.scan, self.cache, self.compress, self.encrypt, self.ship)

    def statistics(self) -> tuple[StageStatistics, ...]:
        """Of each stage, and of the tasks inside that can hold it up by themselves."""
        return (
            self.scan.statistics(),
            self.scan.decide_statistics(),
            self.cache.statistics(),
            self.compress.statistics(),
            self.encrypt.statistics(),
            self.ship.statistics(),
            self.ship.commit_statistics(),
        )


def build_line(
    ports: Machine,
    config: Config,
    machine: MachineConfig,
    session: LogSession,
    identity: Identity,
    disks: list[ScanDisk],
    *,
    snapshot: bool,
) -> Line:
    """Assemble the stages of one run from the machine's pipeline section."""

    tuned = config.pipeline_of(machine)
    stream: Channel[StreamItem] = Channel("stream", max_bytes=STREAM_BYTES, max_items=256)
    packing = build_packing(ports, tuned, session)
    scan = Scan(
        disks,
        session.ledger,
        stream,
        machine=ports,
        examiners=_examiners(ports, tuned.capture, disks, known=bool(session.ledger.tail.seq)),
        group_key=identity.digest_key,
        dedup_bytes=tuned.capture.dedup,
        snapshot=snapshot,
    )
    cache = PassThrough(
        stream,
        packing.segments,
        seal_bytes=tuned.cache.seal_bytes,
        geometry=session.ledger.machine,
    )
    ship = Ship(session, packing.sealed, in_flight=tuned.ship.in_flight, inline=tuned.ship.inline)
    channels = (stream, packing.segments, packing.packed, packing.sealed)
    return Line(scan, cache, packing.compress, packing.encrypt, ship, channels)


def _examiners(ports: Machine, tuned: Capture, disks: list[ScanDisk], *, known: bool) -> Examiners:
    """Hashing holds the interpreter lock, so on large disks it is done by processes.

    Of a disk that is ``known`` nearly all is hashed and no more; of another it is compressed too,
    which takes three times as long: there hashing must not take the processors from that.
    """

    if tuned.workers != "auto":
        workers = tuned.workers
    else:
        found = [ports.files.stat(disk.path) for disk in disks]
        allocated = sum(stat.size if stat.is_block else stat.allocated for stat in found if stat)
        processors = os.cpu_count() or 1
        free = processors if known else processors // 2
        workers = 0 if allocated < _SMALL else max(1, min(2, free))
    if workers:
        return ProcessExaminers(workers, batch=tuned.batch)
    return InlineExaminers(ports.offload)
