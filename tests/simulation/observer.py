"""What is seen of a story, and which rules can be checked as it happens."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

import trio
import trio.testing

import pipeline.exports
from stages.cache.journal.writer import JournalWriter
from stages.nbd import wire
from stages.ship.ledger import Ledger
from stages.ship.session import LogSession
from stages.ship.wal import Intent
from stages.stream import Position
from stages.vault.commit import Header
from tests.simulation.daemon import Process, SimFiles
from tests.simulation.guests import (
    PRESENT,
    Sent,
    SimServer,
    Wrong,
)
from tests.simulation.model import Flush
from tests.simulation.scene import SCANNED, SLACK, Scene
from tests.simulation.stores import Twice, rule_of


class Observer(Scene):
    """Hears of every change of a source, every request and every answer."""

    def _observe(self, stack: ExitStack) -> None:
        intend, advance, places = Ledger.intend, LogSession.advance, self.checker.places

        def intending(ledger: Ledger, intent: Intent) -> None:
            assert intent.stream is not None
            places[intent.object_digest] = intent.stream.position
            intend(ledger, intent)

        async def advancing(session: LogSession, intent: Intent, parts: Any) -> Header:
            header = await advance(session, intent, parts)
            files = session.writer.machine.files
            assert isinstance(files, SimFiles)
            self.checker.writers.append((files.process.name, header.seq))
            self.settled(header.seq)
            return header

        def server(exports: Any, **_: Any) -> SimServer:
            return SimServer(exports, self._guest)

        def store(machine: Any) -> Any:
            process = machine.files.process
            rate = 0 if self.quiet else self.knobs.store_faults
            inner = Twice(self.world.store, process.dice, rate / 8)
            found = process.store(inner, rule_of(process.dice, rate))
            self.late.append(found)
            return found

        stack.enter_context(mock.patch.object(Ledger, "intend", intending))
        stack.enter_context(mock.patch.object(LogSession, "advance", advancing))
        stack.enter_context(mock.patch.object(pipeline.exports, "NbdServer", server))
        stack.enter_context(self.world.stores(store))

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        """A source was changed: by whom, and was that asked for? (R7)"""
        op = self.model.wrote(self.paths[path], offset, data)
        exchange = PRESENT.get()
        owners = [
            sent
            for sent in (exchange.sent if exchange else [])
            if sent.disk == op.disk and sent.covers(offset, data)
        ]
        if not owners:
            raise Wrong(f"R7: {len(data)} bytes at {offset} of {path} were written unasked")
        for sent in owners:
            sent.ops.append(op)

    def fsync_failed(self, path: str) -> None:
        self.model.fsync_failed(self.paths[path])

    def asked(self, sent: Sent) -> Flush | None:
        self.trace.note("asked", sent.request.command, sent.request.offset, sent.request.length)
        tracking = self.intake.group.gate.tracking
        flush = None
        if sent.request.command == wire.CMD_FLUSH:
            flush = self.model.flush_begins(sent.disk)
        if flush is not None and tracking:
            return Flush(Position(0, 0), flush.covers)
        return flush

    def told(self, sent: Sent, flush: Flush | None, error: str) -> None:
        process = self.process
        if process is None or process.dead:
            return
        self.trace.note("told", sent.request.command, error, trio.current_time())
        if error and not (self.cut or self._source_faults(process)):
            raise Wrong(f"no harm: {sent.request.command} failed: {error}")
        took = trio.current_time() - sent.started
        if took > 2 * self.knobs.stall + SLACK:
            raise Wrong(f"no harm: command {sent.request.command} took {took:.1f} s")
        if not error:  # what a failure has left is read back behind the answer
            self.model.answered(sent.ops)
        tracking = self.intake.group.gate.tracking
        if not error:
            if flush is not None:
                self.model.flushed(flush, journalled=not tracking)
            elif sent.request.flags & wire.FLAG_FUA:
                for op in sent.ops:
                    op.kept = not op.doubtful
        self._bounded()

    def _source_faults(self, process: Process) -> bool:
        return self.knobs.source_faults > 0 and process.faults > 0

    def _bounded(self) -> None:
        journal = self.intake.group.journal
        assert isinstance(journal, JournalWriter)
        most = self.knobs.memory + (128 << 10)
        if journal._held > max(most, SCANNED):
            raise Wrong(f"bounded: the journal holds {journal._held} bytes of memory")
        if journal.retained > self.knobs.journal + most:
            raise Wrong(f"bounded: {journal.retained} bytes of journal are retained")
