"""The ship stage: data objects in parallel, then commits in order, one outstanding (R11)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from stages.channel import Channel
from stages.crypto.digest import digest
from stages.errors import StoreError
from stages.model import SealedSegment, Segment
from stages.ship.checkpointer import Checkpointer
from stages.ship.compose import (
    Stored,
    header_of,
    index_bytes,
    index_of,
    intent_of,
    spans_of,
)
from stages.ship.gather import gather
from stages.ship.rollups import Rollups
from stages.ship.session import LogSession
from stages.stage import Meter, StageStatistics, crew, ordered_map
from stages.store.own import put_own
from stages.vault import layout
from stages.vault.commit import Header, ObjectRef, encode_body
from stages.vault.container import Kind, build
from stages.vault.sealing import seal_body

GROUP_SEGMENTS = 16  # segments of one commit inside a gap, where no point is lost by it
GROUP_BYTES = 256 << 20
GROUP_INDEX = 32 << 20  # bytes of index: one more of the largest segments still fits in an intent
INDEX_BYTES = 64 << 20  # a commit of references only has no content, but a body


class Ship:
    """Consumes sealed segments; a commit is in the vault for each group of them.

    ``on_commit`` hears of each one settled, with the last segment in it.
    """

    name = "ship"

    def __init__(
        self,
        session: LogSession,
        source: Channel[SealedSegment],
        *,
        in_flight: int,
        inline: int,
        on_commit: Callable[[Header, Segment], Awaitable[None]] | None = None,
    ):
        self._session = session
        self._source = source
        self._in_flight = in_flight
        self._inline = inline
        self._on_commit = on_commit
        self._whole: Channel[SealedSegment] = Channel("whole", max_bytes=1, max_items=1)
        self._uploaded: Channel[Stored] = Channel(
            "uploaded", max_bytes=GROUP_BYTES, max_items=GROUP_SEGMENTS
        )
        self._next_object = 0
        self._checkpointer = Checkpointer(session)
        self._rollups = Rollups(session)
        self._meter = Meter(self.name, in_flight)
        self._committing = Meter("commit")
        self.commits = 0
        self.newest: Header | None = None

    async def run(self) -> None:
        """Ship until the input ends; on return all of it is committed."""
        await self._rollups.catch_up()
        async with crew() as nursery:
            nursery.start_soon(gather, self._source, self._whole)
            nursery.start_soon(self._upload_all)
            await self._commit_all()

    def statistics(self) -> StageStatistics:
        """Counters of this stage."""
        return self._meter.snapshot()

    def commit_statistics(self) -> StageStatistics:
        """Of the one task behind the uploads that writes the log."""
        return self._committing.snapshot()

    async def _upload_all(self) -> None:
        await ordered_map(
            self._whole,
            self._upload,
            self._uploaded,
            workers=self._in_flight,
            size=lambda stored: max(1, stored.stored_bytes),
            meter=self._meter,
        )

    async def _upload(self, sealed: SealedSegment) -> Stored:
        """Store a segment's frames as one object, unless they are few enough for the commit."""
        spans = spans_of(sealed)
        size = sealed.stored_bytes
        self._meter.items += 1
        self._meter.bytes_in += size
        if size <= self._inline:
            return Stored(
                sealed.segment, sealed.epoch, sealed.first_frame, spans, None, sealed.frames
            )
        number, self._next_object = self._next_object, self._next_object + 1
        writer = self._session.writer
        name = await writer.machine.offload.run(lambda: digest(sealed.frames))
        key = layout.data(writer.scope.group, sealed.epoch, number)
        if not await put_own(writer.store, key, sealed.frames):
            raise StoreError(
                "a data object of this epoch exists already",
                operation="upload",
                subject=key,
                hint="the store does not keep create-only puts, or someone else writes there",
            )
        self._meter.bytes_out += size
        ref = ObjectRef(number, size, name)
        return Stored(sealed.segment, sealed.epoch, sealed.first_frame, spans, ref, ())

    async def _commit_all(self) -> None:
        with self._committing.running():
            while True:
                try:
                    with self._committing.hungry():
                        group = [await self._uploaded.receive()]
                except trio.EndOfChannel:
                    return
                while self._may_join(group) and self._uploaded.statistics().items:
                    group.append(await self._uploaded.receive())
                await self._commit(group)
                self._committing.items += 1
                del group

    @staticmethod
    def _may_join(group: list[Stored]) -> bool:
        """Inside a gap no point is lost by committing segments together.

        Not of a live stream, where a guest's write may follow a scan's in the next segment: the
        digest of a whole chunk, set when all of a commit is settled, would be that of the past.
        """
        return (
            group[-1].segment.in_gap
            and not group[-1].segment.position[0]
            and len(group) < GROUP_SEGMENTS
            and sum(stored.stored_bytes for stored in group) < GROUP_BYTES
            and sum(index_bytes(stored.segment) for stored in group) < GROUP_INDEX
            and sum(stored.index_bytes for stored in group) < INDEX_BYTES
        )

    async def _commit(self, group: list[Stored]) -> None:
        session = self._session
        writer, ledger = session.writer, session.ledger
        wall = writer.machine.clock.wall_us()
        header = header_of(ledger.tail, session.keys.epoch, group, wall)
        index = index_of(group)
        plain = encode_body(index)
        entropy = writer.machine.entropy
        body = seal_body(writer.scope, Kind.COMMIT, session.keys, header.seq, plain, entropy)
        inline = tuple(frame for stored in group for frame in stored.frames)
        parts = build(Kind.COMMIT, header.fields(writer.scope), writer.signer, body, inline)
        intent = intent_of(header, parts, plain, group, ledger.resolve(header, index))
        self.newest = await session.advance(intent, parts)
        self.commits += 1
        self._meter.bytes_out += sum(len(part) for part in parts)
        if self._on_commit is not None:
            await self._on_commit(self.newest, group[-1].segment)
        await self._rollups.committed(header.seq, intent.head)
        if self._checkpointer.due(in_gap=group[-1].segment.in_gap):
            await self._checkpointer.write()
