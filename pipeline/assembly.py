"""The composition root: the only place that builds concrete stages, stores and ports.

Recovery comes here for a store alone, so what only protection needs is imported when it is built.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from stages.errors import KeyFailure
from stages.ports import Machine
from stages.store.open import is_priced, open_store
from stages.store.port import ObjectStore
from stages.store.retry import RetryStore
from stages.vault.charter import Pin, check_pin, load
from stages.vault.keyfile import MAX_SIZE, decode_public

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pipeline.config.model import Capture, Config, Pipeline
    from pipeline.config.model import Machine as MachineConfig
    from pipeline.state import Identity, StateFolder
    from pipeline.stores import VaultStores
    from stages.cache.fold.stage import Fold, Pace
    from stages.cache.journal.reader import JournalReader
    from stages.cache.passthrough import PassThrough
    from stages.capture.examiner import Examiners
    from stages.capture.scan import Scan
    from stages.capture.source import ScanDisk
    from stages.channel import Channel
    from stages.compress.stage import Compress
    from stages.encrypt.stage import Encrypt
    from stages.model import PackedSegment, SealedSegment, Segment, StreamItem
    from stages.ship.ledger import Ledger
    from stages.ship.session import LogSession, Writer
    from stages.ship.stage import Ship
    from stages.stage import Stage, StageStatistics
    from stages.stream import Position, Upstream
    from stages.vault.commit import Header

SMALL = 128 << 20  # below this much allocated disk, helper processes cost more than they save
_STREAM_BYTES = 8 << 20
_PACKED_BYTES = 8 << 20  # with a segment in each worker, this bounds the run's memory
_RETRY_SECONDS = 10.0
SEAL_AFTER = 1.0  # seconds, on vaults where a put costs nothing
SEAL_AFTER_PRICED = 15.0  # a put a second is 13 dollars a month


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


def vault_store(ports: Machine, url: str, *, patience: float = _RETRY_SECONDS) -> ObjectStore:
    """The store of a vault, with blips of up to ``patience`` seconds retried."""
    return RetryStore(open_store(url, ports), ports.clock, ports.entropy, seconds=patience)


def vault_stores(ports: Machine, config: Config) -> VaultStores:
    """The stores of the vaults of a configuration, shared by those who protect its machines."""
    from pipeline.stores import Again, VaultStores

    def patient(store: ObjectStore, again: Again) -> ObjectStore:
        return RetryStore(store, ports.clock, ports.entropy, seconds=_RETRY_SECONDS, again=again)

    return VaultStores(ports, config, lambda url: open_store(url, ports), patient)


def seal_seconds(config: Config, machine: MachineConfig) -> float:
    """After how many seconds what was written to a live machine becomes a commit."""
    after = config.pipeline_of(machine).cache.seal_after
    auto = SEAL_AFTER_PRICED if is_priced(config.vault_of(machine).url) else SEAL_AFTER
    return auto if after == "auto" else float(after)


def read_pins(ports: Machine, path: str) -> tuple[Pin, ...]:
    """The pins in a trust file. Raises ``KeyFailure``."""
    try:
        data = ports.files.read(path, MAX_SIZE)
    except OSError as error:
        raise KeyFailure(
            f"the trust file cannot be read: {error.strerror}",
            operation="trust",
            subject=path,
            hint="'backstay init' writes it beside the key (NAME.pub); copy it to this place",
        ) from None
    return decode_public(data, path).pins


async def open_writer(
    ports: Machine,
    config: Config,
    name: str,
    state: StateFolder,
    stores: VaultStores | None = None,
) -> tuple[Writer, Ledger, Identity]:
    """The vault of a machine as its writer, checked against the pinned trust; and its ledger.

    ``stores``: shared with other machines; without it limits hold for this one alone.
    """
    vault = config.vault_of(config.machine(name))
    shared = stores or vault_stores(ports, config)
    store = shared.store(config.machine(name).vault, name)
    try:
        return await _open_writer(ports, vault.trust, name, state, store)
    except BaseException:
        with trio.CancelScope(shield=True):
            await store.aclose()
        raise


async def _open_writer(
    ports: Machine, trust: str, name: str, state: StateFolder, store: ObjectStore
) -> tuple[Writer, Ledger, Identity]:
    from stages.ship.ledger import Ledger
    from stages.ship.session import Writer
    from stages.vault.sealing import Scope

    charter = await load(store, None)
    pin = next((pin for pin in read_pins(ports, trust) if pin.vault == charter.vault), None)
    if pin is None:
        raise KeyFailure(
            f"{trust} does not know vault {charter.vault.hex()}",
            operation="trust",
            subject=store.url,
            hint="is it the right vault? Only then give the .pub file that 'backstay init' wrote "
            "for it as 'trust'",
        )
    check_pin(charter, pin, store.url)
    folder = state.machine_folder(name, charter.vault)
    identity = state.identity(folder)
    signer = state.signer()
    scope = Scope(charter.vault, identity.group, charter.cipher)
    ledger = Ledger(ports, folder, scope)  # from here on somebody has to close it
    try:
        ledger.recover()
    except BaseException:
        ledger.close()
        raise
    return Writer(store, scope, charter, signer, ports), ledger, identity


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
    from stages.cache.passthrough import PassThrough
    from stages.capture.scan import Scan
    from stages.channel import Channel
    from stages.ship.stage import Ship

    tuned = config.pipeline_of(machine)
    seal_bytes = tuned.cache.seal_bytes
    stream: Channel[StreamItem] = Channel("stream", max_bytes=_STREAM_BYTES, max_items=256)
    segments: Channel[Segment] = Channel("segments", max_bytes=_STREAM_BYTES, max_items=64)
    sealed: Channel[SealedSegment] = Channel("sealed", max_bytes=_PACKED_BYTES, max_items=64)
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
    geometry = session.ledger.machine
    cache = PassThrough(stream, segments, seal_bytes=seal_bytes, geometry=geometry)
    packed = _packed()
    compress, encrypt = _packing(ports, tuned, session, segments, packed, sealed)
    ship = Ship(session, sealed, in_flight=tuned.ship.in_flight, inline=tuned.ship.inline)
    return Line(scan, cache, compress, encrypt, ship, (stream, segments, packed, sealed))


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
    from stages.cache.fold.stage import Fold
    from stages.channel import Channel
    from stages.digests import DigestKeys
    from stages.ship.stage import Ship

    tuned = config.pipeline_of(machine)
    segments: Channel[Segment] = Channel("segments", max_bytes=_STREAM_BYTES, max_items=64)
    sealed: Channel[SealedSegment] = Channel("sealed", max_bytes=_PACKED_BYTES, max_items=64)
    fold = Fold(
        reader,
        upstream,
        segments,
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
    compress, encrypt = _packing(ports, tuned, session, segments, _packed(), sealed)
    ship = Ship(
        session,
        sealed,
        in_flight=tuned.ship.in_flight,
        inline=tuned.ship.inline,
        on_commit=on_commit,
    )
    return Leg(fold, compress, encrypt, ship)


def _packed() -> Channel[PackedSegment]:
    from stages.channel import Channel

    return Channel("packed", max_bytes=_PACKED_BYTES, max_items=64)


def _packing(
    ports: Machine,
    tuned: Pipeline,
    session: LogSession,
    segments: Channel[Segment],
    packed: Channel[PackedSegment],
    sealed: Channel[SealedSegment],
) -> tuple[Compress, Encrypt]:
    """The two stages between segments and sealed segments."""
    from stages.compress.stage import Compress
    from stages.encrypt.stage import Encrypt

    offload = ports.offload
    compress = Compress(
        segments, packed, offload, level=tuned.compress.level, workers=tuned.compress.workers
    )
    encrypt = Encrypt(
        packed,
        sealed,
        offload,
        ports.entropy,
        scope=session.writer.scope,
        keys=session.keys,
        workers=tuned.encrypt.workers,
    )
    return compress, encrypt


def _examiners(ports: Machine, tuned: Capture, disks: list[ScanDisk], *, known: bool) -> Examiners:
    """Hashing holds the interpreter lock, so on large disks it is done by processes.

    Of a disk that is ``known`` nearly all is hashed and no more; of another it is compressed too,
    which takes three times as long: there hashing must not take the processors from that.
    """
    from stages.capture.examiner import InlineExaminers
    from stages.capture.pool import ProcessExaminers

    if tuned.workers != "auto":
        workers = tuned.workers
    else:
        found = [ports.files.stat(disk.path) for disk in disks]
        allocated = sum(stat.size if stat.is_block else stat.allocated for stat in found if stat)
        processors = os.cpu_count() or 1
        free = processors if known else processors // 2
        workers = 0 if allocated < SMALL else max(1, min(2, free))
    if workers:
        return ProcessExaminers(workers, batch=tuned.batch)
    return InlineExaminers(ports.offload)
