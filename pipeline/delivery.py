"""Delivery of one machine: its journal, folded, compressed, sealed and committed (R2, R11).

Delivery goes in legs. A leg runs from a position of the stream to the next change of disks, with
the stages of a run at rest behind a fold of the journal; between two legs everything is committed,
and the machine record says which disks there are from here on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import trio

from pipeline.assembly import open_writer
from pipeline.config.model import Config
from pipeline.leg import Leg, build_leg
from pipeline.state import Identity, StateFolder
from pipeline.stores import VaultStores
from pipeline.vault_disks import Answers, Numbers, is_news, keep, load
from stages.cache.fold.stage import Fold, NewGeometry, Pace
from stages.cache.journal.reader import JournalReader
from stages.model import Segment
from stages.ports import Machine
from stages.ship.group import found_group, record_machine
from stages.ship.session import LogSession
from stages.ship.snapshot import NO_DIGEST
from stages.ship.trouble import in_words
from stages.stage import StageStatistics, crew
from stages.stream import ORIGIN, Digests, JournalGap, MarkedPoint, Position, Upstream
from stages.vault.commit import Header

KEEP_SECONDS = 10.0  # between two times that the record of the vault is made durable

Attach = Callable[[Digests], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """A snapshot. ``stamp`` µs of the newest commit; ``position`` behind it; ``shipped`` bytes
    since delivery began; ``stages`` since the disks changed last."""

    seq: int
    stamp: int
    position: Position
    commits: int
    consistent: bool
    shipped: int
    stages: tuple[StageStatistics, ...] = ()


class Delivery:
    """One life of delivery for one machine. ``attach`` makes intake hear its answers; ``stores``
    are shared with other machines."""

    def __init__(
        self,
        machine: Machine,
        config: Config,
        name: str,
        state: StateFolder,
        upstream: Upstream,
        attach: Attach,
        *,
        keep_seconds: float = KEEP_SECONDS,
        stores: VaultStores | None = None,
    ):
        self._machine = machine
        self._config = config
        self._name = name
        self._state = state
        self._upstream = upstream
        self._attach = attach
        self._keep_seconds = keep_seconds
        self._stores = stores
        self._pace = Pace()
        self._fold: Fold | None = None
        self._now: Leg | None = None
        self._session: LogSession
        self._kept_at = 0.0
        self._commits = 0
        self._shipped = 0  # in sessions before this one
        self._consistent = False
        self._moved = trio.lowlevel.ParkingLot()
        self._committed: Position = ORIGIN
        self._hurried = False
        self._fresh = True  # nothing was committed in this session

    async def run(self) -> None:
        """Deliver until cancelled. Raises the errors of the stages, by their class."""
        with in_words("keep state", self._state.path):
            async with AsyncExitStack() as stack:
                writer, ledger, identity = await open_writer(
                    self._machine, self._config, self._name, self._state, self._stores
                )
                stack.callback(ledger.close)
                stack.push_async_callback(writer.store.aclose)
                writer.check_admitted()
                await found_group(writer, identity.digest_key)
                self._session = LogSession(writer, ledger)
                await self._session.open()
                numbers = await load(self._machine, ledger.folder)
                if numbers.machine != ledger.machine:
                    # It ended between the two: the change of disks is still to come in the stream,
                    # and there is no commit to be made before it.
                    numbers.machine = 0
                answers = Answers(self._machine, ledger, identity, numbers)
                reader = JournalReader(self._machine.files, self._state.journal_folder(self._name))
                stack.callback(reader.close)
                await self._go_on(reader, answers, identity, stack)

    def status(self) -> DeliveryStatus:
        """An immutable snapshot."""
        tail = self._session.ledger.tail
        return DeliveryStatus(
            tail.seq,
            tail.stamp,
            self._committed,
            self._commits,
            self._consistent,
            self._shipped + self._session.shipped,
            () if self._now is None else self._now.statistics(),
        )

    def hurry(self) -> None:
        """Seal what there is at once, from now on: a drain."""
        self._hurried = True
        if self._fold is not None:
            self._fold.hurry()

    def has_committed(self, position: Position) -> bool:
        """Is everything before ``position`` in the vault?"""
        behind = self._fold is not None and self._fold.nothing_before(position)
        return self._committed >= position or behind

    async def next_commit(self) -> None:
        """Return when one was made."""
        await self._moved.park()

    async def _go_on(
        self, reader: JournalReader, answers: Answers, identity: Identity, stack: AsyncExitStack
    ) -> None:
        ledger = self._session.ledger
        place = ledger.tail.stream
        start, in_gap = (ORIGIN, True) if place is None else (place.position, place.in_gap)
        try:
            if place is None and ledger.tail.link != NO_DIGEST:
                # A branch that goes on from a point of another log, or disks that were scanned at
                # rest before: what this journal holds was compared with something else.
                raise _another()
            if start == ORIGIN:
                start = await self._machine.offload.run(reader.first)
            else:
                await self._machine.offload.run(lambda: reader.check(start))
        except JournalGap as gap:
            start = await self._upstream.lost(str(gap))
        else:
            self._committed = start
            await self._upstream.committed(start)
        await stack.enter_async_context(self._attach(answers))
        while True:
            ended = await self._leg(reader, answers.numbers, identity, start, in_gap=in_gap)
            place = ledger.tail.stream
            in_gap = place.in_gap if place is not None else in_gap
            # What no scan has seen yet makes no consistent point, whatever stands in the stream.
            in_gap = await self._new_disks(ended, answers) or in_gap
            start = ended.position

    async def _leg(
        self,
        reader: JournalReader,
        numbers: Numbers,
        identity: Identity,
        start: Position,
        *,
        in_gap: bool,
    ) -> NewGeometry:
        leg = build_leg(
            self._machine,
            self._config,
            self._config.machine(self._name),
            self._session,
            identity,
            reader=reader,
            upstream=self._upstream,
            start=start,
            in_gap=in_gap,
            geometry=numbers.machine,
            numbers={at: disk.number for at, disk in numbers.disks.items()},
            disks=tuple((at, disk.name, disk.size) for at, disk in numbers.disks.items())
            if numbers.machine
            else (),
            pace=self._pace,
            on_commit=self._on_commit,
        )
        self._fold, self._now = leg.fold, leg
        if self._hurried:
            self._fold.hurry()
        self._pace.on_the_way = 0
        async with crew() as nursery:
            for stage in leg.stages:
                nursery.start_soon(stage.run)
        assert leg.fold.ended is not None  # noqa: S101 - it returns for no other reason
        return leg.fold.ended

    async def _new_disks(self, found: NewGeometry, answers: Answers) -> bool:
        """The vault's disks from here on, and a session whose commits say so. True if the vault
        does not know all of what they hold."""
        ledger, before = self._session.ledger, answers.numbers
        disks = before.following(found, ledger.disks.values(), ledger.next_disk)
        unseen = any(is_news(disk, before.disks.get(at)) for at, disk in disks.items())
        if tuple(ledger.disks.values()) != tuple(disks.values()) or not ledger.machine:
            await self._machine.offload.run(ledger.checkpoint_state)
            await record_machine(self._session, self._name, tuple(disks.values()))
        answers.numbers = Numbers(disks, ledger.machine)
        await keep(self._machine, ledger.folder, answers.numbers)
        if self._fresh:
            return unseen
        # Frames are numbered from 0 in every epoch: the next leg needs one of its own.
        self._shipped += self._session.shipped
        self._session = LogSession(self._session.writer, ledger)
        await self._session.open()
        self._fresh = True
        return unseen

    async def _on_commit(self, header: Header, segment: Segment) -> None:
        """A recovery point exists."""
        self._pace.committed(1)
        self._commits += 1
        self._fresh = False
        self._consistent = header.consistent
        run, offset = segment.position
        self._committed = Position(run, offset)
        self._moved.unpark_all()
        await self._upstream.committed(self._committed)
        if segment.mark:
            await self._upstream.marked(_marked(header, segment))
        now = self._machine.clock.monotonic()
        # A gap that has just begun: intake may be waiting for its journal to be trimmed.
        began = segment.in_gap and not segment.batches
        if began or now - self._kept_at >= self._keep_seconds:
            await self._machine.offload.run(self._session.ledger.checkpoint_state)
            self._kept_at = now
            await self._upstream.settled(self._committed)


def _another() -> JournalGap:
    return JournalGap(
        "the vault goes on from a point that this journal knows nothing of", operation="deliver"
    )


def _marked(header: Header, segment: Segment) -> MarkedPoint:
    if segment.mark > 0:
        return MarkedPoint(segment.mark, header.seq, header.stamp, header.grade)
    reason = "a gap was open, or the freeze did not hold"
    return MarkedPoint(-segment.mark, 0, header.stamp, header.grade, reason)
