"""The stages of delivery between two changes of disks: a journal folded, packed, sealed, put."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pipeline.assembly import seal_seconds
from pipeline.config.model import Config
from pipeline.config.model import Machine as MachineConfig
from pipeline.packing import build_packing
from pipeline.state import Identity
from stages.cache.fold.stage import Fold, Pace
from stages.cache.journal.reader import JournalReader
from stages.compress.stage import Compress
from stages.digests import DigestKeys
from stages.encrypt.stage import Encrypt
from stages.model import Segment
from stages.ports import Machine
from stages.ship.session import LogSession
from stages.ship.stage import Ship
from stages.stage import Stage, StageStatistics
from stages.stream import Position, Upstream
from stages.vault.commit import Header


@dataclass(frozen=True, slots=True)
class Leg:
    """The stages of one leg of delivery, joined by channels, in order."""

    fold: Fold
    compress: Compress
    encrypt: Encrypt
    ship: Ship

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In the order of the data."""
        return (self.fold, self.compress, self.encrypt, self.ship)

    def statistics(self) -> tuple[StageStatistics, ...]:
        """Of each stage, and of the task inside shipping that writes the log."""
        return (
            *(stage.statistics() for stage in self.stages),
            self.ship.commit_statistics(),
        )


def build_leg(
    ports: Machine,
    config: Config,
    machine: MachineConfig,
    session: LogSession,
    identity: Identity,
    *,
    reader: JournalReader,
    upstream: Upstream,
    start: Position,
    in_gap: bool,
    geometry: int,
    numbers: Mapping[int, int],
    disks: tuple[tuple[int, str, int], ...],
    pace: Pace,
    on_commit: Callable[[Header, Segment], Awaitable[None]],
) -> Leg:
    """Assemble the stages behind a live machine's journal."""

    tuned = config.pipeline_of(machine)
    packing = build_packing(ports, tuned, session)
    fold = Fold(
        reader,
        upstream,
        packing.segments,
        machine=ports,
        start=start,
        in_gap=in_gap,
        geometry=geometry,
        numbers=numbers,
        disks=disks,
        keys=DigestKeys.derive(identity.digest_key),
        pace=pace,
        seal_after=seal_seconds(config, machine),
        seal_bytes=tuned.cache.seal_bytes,
    )
    ship = Ship(
        session,
        packing.sealed,
        in_flight=tuned.ship.in_flight,
        inline=tuned.ship.inline,
        on_commit=on_commit,
    )
    return Leg(fold, packing.compress, packing.encrypt, ship)
