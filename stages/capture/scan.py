"""The scan stage: the disks of a machine at rest, compared with what the vault holds (R3, R7, R8).

Three tasks: one plans, one keeps several batches in the examiner, one decides and emits in order.
The stream is ``GapBegin``, batches in ascending order disk by disk, ``GapEnd``: a stream that
ends without ``GapEnd`` is a scan that did not finish, and its last commit is not consistent.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial

import trio

from stages.capture.decide import Decider
from stages.capture.examine import ReadFailed
from stages.capture.examiner import Examined, Examiner, Examiners, source_error
from stages.capture.known import Known
from stages.capture.plan import Hole, Piece, Plan
from stages.capture.source import ScanDisk, Source, open_source
from stages.channel import Channel
from stages.digests import DigestKeys
from stages.model import BLOCK, Batch, GapBegin, GapEnd, Loan, Rows, StreamItem
from stages.ports import Machine
from stages.stage import Meter, StageStatistics, crew, ordered_map

REASON = "scan"
QUIET = "quiet"  # nothing changed while the disks were read
FUZZY = "fuzzy"  # something may have: the point may mix moments
DEDUP_BYTES = 48 << 20  # 2 million blocks: 8 GiB of disk

_AHEAD = 64  # planned pieces
_LENDING = 4  # slots: behind the scan three batches can be held until a fourth one comes


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """Bytes of disk: of ``total``, ``scanned`` so far, of those ``read`` (the rest are holes).

    ``changed`` is what differed from the vault: sent as content, ``zero``, and ``deduplicated``.
    """

    total: int
    scanned: int
    read: int
    changed: int
    zero: int
    deduplicated: int


@dataclass(frozen=True, slots=True)
class _Looked:
    """A piece, and what was found of it (None for a hole)."""

    piece: Piece
    found: Examined | None


class Scan:
    """One scan of ``disks`` into ``sink``, against the digests in ``known``; runs once.

    ``group_key`` is the group's digest key; ``dedup_bytes`` the memory for references (0: none);
    ``snapshot`` says that a hook keeps the disks still. ``run`` raises the ``SourceError`` or
    ``WorkerLost`` that ended it.
    """

    name = "scan"

    def __init__(
        self,
        disks: Sequence[ScanDisk],
        known: Known,
        sink: Channel[StreamItem],
        *,
        machine: Machine,
        examiners: Examiners,
        group_key: bytes,
        dedup_bytes: int = DEDUP_BYTES,
        snapshot: bool = False,
    ):
        self._disks = tuple(disks)
        self._known = known
        self._sink = sink
        self._machine = machine
        self._examiners = examiners
        self._keys = DigestKeys.derive(group_key)
        self._dedup_bytes = dedup_bytes
        self._decider: Decider
        self._snapshot = snapshot
        self._meter = Meter(self.name)
        self._deciding = Meter("decide")
        self._total = sum(target.disk.size for target in self._disks)
        self._scanned = self._read = self._data = self._zero = self._refs = 0

    def statistics(self) -> StageStatistics:
        """An immutable snapshot: bytes of disk in, of content out."""
        return self._meter.snapshot()

    def decide_statistics(self) -> StageStatistics:
        """Of the one task behind the examiners that decides what to send, in order."""
        return self._deciding.snapshot()

    def progress(self) -> ScanProgress:
        """An immutable snapshot."""
        return ScanProgress(
            total=self._total,
            scanned=self._scanned,
            read=self._read,
            changed=(self._data + self._zero + self._refs) * BLOCK,
            zero=self._zero * BLOCK,
            deduplicated=self._refs * BLOCK,
        )

    async def run(self) -> None:
        """Scan all disks once; closes ``sink``."""
        with self._sink:
            async with AsyncExitStack() as stack:
                sources = []
                for target in self._disks:
                    sources.append(await self._open(target))
                    stack.callback(sources[-1].file.close)
                await self._sink.send(GapBegin(REASON), BLOCK)
                files = [source.file for source in sources]
                async with self._examiners.open(files, self._keys) as examiner:
                    lend = examiner.slots >= _LENDING
                    self._decider = Decider(self._known, self._dedup_bytes, lend=lend)
                    await self._scan(sources, examiner)
                await self._sink.send(GapEnd(await self._grade(sources)), BLOCK)

    async def _open(self, target: ScanDisk) -> Source:
        return await open_source(
            target,
            files=self._machine.files,
            offload=self._machine.offload,
            clock=self._machine.clock,
            snapshot=self._snapshot,
        )

    async def _grade(self, sources: Sequence[Source]) -> str:
        quiet = [await self._machine.offload.run(source.quiet) for source in sources]
        return QUIET if all(quiet) else FUZZY

    async def _scan(self, sources: Sequence[Source], examiner: Examiner) -> None:
        pieces: Channel[Piece] = Channel("plan", max_bytes=_AHEAD, max_items=_AHEAD)
        looked: Channel[_Looked] = Channel("examined", max_bytes=1, max_items=1)
        async with crew() as nursery:
            nursery.start_soon(self._plan, sources, examiner.batch, pieces)
            nursery.start_soon(
                # No more at a time than slots: else later ones could hold them all.
                partial(
                    ordered_map,
                    pieces,
                    partial(self._look, examiner),
                    looked,
                    workers=examiner.slots,
                    size=lambda _: 1,
                    meter=self._meter,
                )
            )
            with self._deciding.running():
                while True:
                    try:
                        with self._deciding.hungry():
                            item = await looked.receive()
                    except trio.EndOfChannel:
                        break
                    await self._emit(item, sources)
                    del item  # or what it holds is held until the next one is ready

    async def _plan(self, sources: Sequence[Source], batch: int, pieces: Channel[Piece]) -> None:
        with pieces:
            for index, source in enumerate(sources):
                plan = Plan(index, source.target.disk, source.file, self._known, batch)
                step = partial(_step, plan, source)
                while found := await self._machine.offload.run(step):
                    for piece in found:
                        await pieces.send(piece, 1)

    async def _look(self, examiner: Examiner, piece: Piece) -> _Looked:
        if isinstance(piece, Hole):
            return _Looked(piece, None)
        found = await examiner.examine(piece.disk, piece.offset, piece.length, piece.known)
        return _Looked(piece, found)

    async def _emit(self, looked: _Looked, sources: Sequence[Source]) -> None:
        piece, found = looked.piece, looked.found
        if isinstance(piece, Hole):
            await self._send(piece.batch)
            self._count(piece.scanned, 0)
        elif found is not None:
            await self._send(await self._decide(sources[piece.disk].target.disk.number, found))
            self._count(found.length, found.read)

    async def _decide(self, disk: int, found: Examined) -> Batch | None:
        lent = False
        try:
            if not found.changed:
                self._decider.unchanged(disk, found)
                return None
            batch = await self._machine.offload.run(partial(self._decider.decide, disk, found))
            if batch is not None and isinstance(batch.payload, Rows):
                lent = True
                _release_after(batch.payload.loan, found.release)
            return batch
        finally:
            if not lent:
                found.release()

    async def _send(self, batch: Batch | None) -> None:
        if batch is None:
            return
        with self._deciding.blocked():
            await self._sink.send(batch, max(batch.payload_bytes, BLOCK))
        self._deciding.items += 1
        self._data += len(batch.data)
        self._zero += batch.zero.total
        self._refs += len(batch.refs)
        self._meter.items += 1
        self._meter.bytes_out += batch.payload_bytes

    def _count(self, scanned: int, read: int) -> None:
        self._scanned += scanned
        self._read += read
        self._meter.bytes_in += scanned


def _release_after(loan: Loan, release: Callable[[], None]) -> None:
    """Call ``release`` in the event loop once ``loan`` has ended, in whatever thread."""
    token = trio.lowlevel.current_trio_token()

    def ended() -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(release)

    weakref.finalize(loan, ended).atexit = False


def _step(plan: Plan, source: Source) -> list[Piece]:
    """In a worker thread. A hole where the disk used to end is no hole: look at the size first."""
    source.require_size()
    try:
        return plan.step()
    except OSError as error:
        raise source_error(ReadFailed(plan.offset, error.errno or 0), source.file.path) from error
