"""A story: the lives of one machine, from one seed.

Intake and delivery are processes of their own on one file system with a page cache, under one
virtual clock; the vault is a store that fails. Lives end by a kill, a power cut, a stop or a
cancellation; delivery is killed much more often. The last life has no faults and must heal.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast
from unittest import mock

import trio
import trio.testing

import pipeline.intake
from pipeline.delivery import Answers, Delivery
from pipeline.intake import IntakeDisk, MachineIntake
from pipeline.state import StateFolder
from stages.cache.journal.writer import JournalLimits, JournalWriter
from stages.capture.group.group import Limits
from stages.capture.splitter.handler import SplitHandler
from stages.errors import BackstayError, Fenced, leaves
from stages.joint import Joint
from stages.model import BLOCK
from stages.nbd import wire
from stages.ship.ledger import Ledger
from stages.ship.session import LogSession
from stages.ship.wal import Intent
from stages.store.faults import FaultStore
from stages.stream import REGION, Digests, Position
from stages.vault.commit import Header
from tests.simulation.checker import Checker
from tests.simulation.daemon import Killed, Process, SimFiles, Trace, Window
from tests.simulation.guests import CHANGES, PRESENT, Exchange, Guest, Sent, SimServer, Witness, Wrong
from tests.simulation.image import Image
from tests.simulation.knobs import Knobs, draw
from tests.simulation.model import Flush, Model
from tests.simulation.stores import Twice, rule_of
from tests.simulation.setting import configuration
from tests.whole.world import NAME, STATE, World

CLONE = "/clone"
SIZES = {"root": REGION + 24 * BLOCK + 512, "data": 30 * BLOCK + 512}
LONG = 4 * 3600.0  # virtual seconds: what has not happened by then never will
SLACK = 3.0  # seconds of slow threads beside the bound of a stall


class Story(Witness):
    """Tell it with ``run``; ``Wrong`` or another ``AssertionError`` says which rule broke."""

    def __init__(self, seed: int, knobs: Knobs | None = None):
        self.seed = seed
        self.knobs = knobs or draw(seed)
        self.dice = random.Random(seed)
        self.trace = Trace()
        self.world = World(seed)
        self.model = Model()
        self.checker = Checker(self.model, Image(self.world.store, self.world.key))
        self.sizes = dict(list(SIZES.items())[: self.knobs.disks])
        self.paths = {f"/disks/{name}": name for name in self.sizes}
        self.config = configuration(self.knobs, self.sizes)
        self.made = self.faults = 0
        self.fenced = self.cloned = False
        self.late: list[FaultStore] = []
        self._life_setup()
        for path, name in self.paths.items():
            content = bytearray(self.sizes[name])
            for _ in range(16):
                at = self.dice.randrange(len(content) // BLOCK) * BLOCK
                content[at : at + BLOCK] = self.dice.randbytes(BLOCK)
            self.world.files.put(path, bytes(content), sparse=False)

    def _life_setup(self) -> None:
        self.process: Process | None = None
        self.intake: MachineIntake
        self.exchanges: set[Exchange] = set()
        self.quiet = False
        self.quota = self.progress = 0
        self.triggers: list[tuple[int, Callable[[], None]]] = []
        self.ends = trio.Event()
        self.frozen = 0
        self.thawed = trio.Event()
        self.source_failed = False

    # lives

    def run(self) -> None:
        """All lives, checked after each."""
        with ExitStack() as stack:
            self._observe(stack)
            for at in range(self.knobs.lives):
                share = self.knobs.writes * 9 // 10 // self.knobs.lives
                self._live(self.dice.choice(self.knobs.ends), share)
                if self.fenced and at:
                    break
            self._live("heal", max(self.knobs.writes - self.made, 20))

    def _live(self, end: str, quota: int) -> None:
        self._life_setup()
        self.quiet = end == "heal"
        self.quota = quota
        self.trace.note("life", end)
        kernel: Any = trio._core._run
        clock = trio.testing.MockClock(autojump_threshold=0)
        with mock.patch.object(kernel, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True):
            kernel._r.seed(self.dice.getrandbits(30))
            try:
                trio.run(self._main, end, clock=clock)
            except (Killed, BaseExceptionGroup) as raised:
                self._take(raised)
        self.world.files.process_died()
        if self.process is not None:
            self.faults += self.process.faults + (end != "heal")
        if end in ("power", "stop+power"):
            self.world.files.power_cut(self.dice.getrandbits(30))
            wrong = self.model.power_cut(self._sources())
            if wrong:
                raise Wrong(f"flush: {wrong}")
        trio.run(self.checker.follow)
        if self.quiet and not self.fenced:
            self.checker.settle(self._sources())

    def _take(self, raised: BaseException) -> None:
        """A process that was killed may say anything; but a broken rule is one."""
        wrong = [leaf for leaf in leaves(raised) if isinstance(leaf, Wrong)]
        if wrong:
            raise wrong[0] from raised
        if self.process is None or not self.process.dead:
            raise raised

    async def _main(self, end: str) -> None:
        with trio.fail_after(LONG), trio.CancelScope() as scope:
            self.process = process = self._new_process("intake", STATE)
            process.on_death = scope.cancel
            folder = StateFolder.open(process.machine, STATE, lock=False)
            self.intake = await self._open(process, folder)
            async with trio.open_nursery() as nursery:
                run = trio.CancelScope()
                over = trio.Event()
                await nursery.start(self._run_intake, run, over)
                nursery.start_soon(self._deliver, self.intake.joint, STATE)
                if not self.quiet:
                    self._plan(end, process, nursery)
                nursery.start_soon(self._mark_now_and_then)
                if self.quiet:
                    await self._heal()
                    await trio.sleep(self.dice.choice((0, 1, 30)))
                else:
                    with trio.move_on_after(300):
                        await self.ends.wait()
                await self._end(end, process, run, over)
                nursery.cancel_scope.cancel()

    async def _open(self, process: Process, folder: StateFolder) -> MachineIntake:
        knobs = self.knobs
        disks = [IntakeDisk(name, path, f"unix:/{name}") for path, name in self.paths.items()]
        intake = await MachineIntake.open(
            process.machine,
            folder.intake_folder(NAME),
            NAME,
            disks,
            Limits(journal=knobs.journal, cool=knobs.cool, stall=knobs.stall),
            journal=JournalLimits(
                memory=knobs.memory,
                file=40_000,
                sync_seconds=knobs.sync_seconds,
                ahead=4096,
            ),
        )
        journal = intake.group.journal
        assert isinstance(journal, JournalWriter)
        self.checker.recovered({file.run: file.start + size for file, size in journal._kept})
        self.model.begin(journal.head.run, self._sources())
        self.model.head = lambda: intake.group.gate.stream.head
        return intake

    async def _run_intake(
        self, scope: trio.CancelScope, over: trio.Event, *, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            with scope:
                await self.intake.run(task_status=task_status)
        except BaseExceptionGroup as group:
            # Cancelled, it can flush no more, and says so in its own way.
            if not scope.cancel_called or group.split(RuntimeError)[1] is not None:
                raise
        over.set()

    async def _end(
        self, end: str, process: Process, run: trio.CancelScope, over: trio.Event
    ) -> None:
        if end in ("stop", "stop+power", "heal"):
            self.intake.stop()
        elif end == "cancel":
            run.cancel()
        else:
            process.die()
            await trio.sleep_forever()
        await over.wait()
        await trio.sleep(self.dice.choice((0, 0, 5)))
        process.dead = True

    def _plan(self, end: str, process: Process, nursery: trio.Nursery) -> None:
        """After how many writes what goes wrong."""
        dice, quota = self.dice, self.quota
        at = dice.randrange(quota // 2, quota + 1)
        if end in ("kill", "power"):
            self.triggers.append((at, lambda: setattr(process, "die_in", dice.randrange(40))))
            self.triggers.append((quota, self.ends.set))
        else:
            self.triggers.append((at, self.ends.set))
        count = int(self.knobs.disk_faults) + (dice.random() < self.knobs.disk_faults % 1)
        for _ in range(count):
            kind = dice.choice(("full", "broken", "hanging"))
            seconds = dice.choice((0.05, 1.0, 8.0, 40.0))
            trouble = partial(self._trouble, kind, seconds)
            self.triggers.append((dice.randrange(max(1, at)), trouble))
        if dice.random() < self.knobs.clone and not self.cloned:
            self.triggers.append((at // 2, lambda: nursery.start_soon(self._clone)))
        self.triggers.sort(key=lambda one: one[0])

    def _trouble(self, kind: str, seconds: float) -> None:
        now = trio.current_time()
        self.faults += 1
        self.windows.append(Window(kind, now, now + seconds))

    def _new_process(self, name: str, state: str) -> Process:
        if name == "intake":
            self.windows: list[Window] = []
        knobs = self.knobs
        return Process(
            self.world.files,
            state,
            frozenset(self.paths),
            random.Random(self.dice.getrandbits(30)),
            self.trace,
            self,
            name=name,
            slow=knobs.slow,
            source_faults=0 if self.quiet else knobs.source_faults,
            windows=self.windows,
        )

    def _sources(self) -> dict[str, bytes]:
        return {
            name: self.world.files.read(path, self.sizes[name]) for path, name in self.paths.items()
        }

    async def _heal(self) -> None:
        """Without faults everything becomes well again."""
        while self.quota > 0 or self.exchanges:
            await trio.sleep(1)
        for store in self.late:
            await store.settle()
        while not self.fenced and self.intake.group.gap.is_open:
            await trio.sleep(1)
        while not self.fenced:
            with trio.move_on_after(600):
                point = await self.intake.mark("end")
                if point.seq:
                    return
            if self.intake.group.gap.is_open:
                raise Wrong("heals: a gap opens without a fault")

    # delivery

    async def _deliver(self, joint: Joint, state: str, name: str = "delivery") -> None:
        """Delivery is killed and comes back, until it is fenced."""
        while True:
            process = self._new_process(name, state)
            patience = LONG if self.quiet else self.dice.choice(self.knobs.patience)
            scope = trio.CancelScope(deadline=trio.current_time() + patience)
            process.on_death = scope.cancel
            if not self.quiet and self.dice.random() < 0.3:
                process.die_in = self.dice.randrange(400)
            folder = StateFolder.open(process.machine, state, lock=False)
            attach = partial(self._attached, joint)
            delivery = Delivery(
                process.machine, self.config, NAME, folder, joint, attach, keep_seconds=3.0
            )
            try:
                with scope:
                    await delivery.run()
            except (BackstayError, Killed, BaseExceptionGroup) as raised:
                if self._fails(raised, process):
                    return
            finally:
                self.faults += process.dead
                process.dead = True
            self.faults += scope.cancelled_caught
            await trio.sleep(1 if self.quiet else self.dice.choice(self.knobs.pauses))

    def _fails(self, raised: BaseException, process: Process) -> bool:
        """True if it is over with this daemon. Raises what must not happen."""
        found = leaves(raised)
        if process.dead and not any(isinstance(leaf, Wrong) for leaf in found):
            return False
        for leaf in found:
            if not isinstance(leaf, BackstayError):
                raise raised
            self.trace.note("delivery", type(leaf).__name__)
            if isinstance(leaf, Fenced) and self.cloned:
                self.fenced |= process.name == "delivery"
                return True
            if not leaf.recoverable and not self._excused(leaf):
                raise Wrong(f"delivery gives up: {type(leaf).__name__}: {leaf}") from raised
        return False

    def _excused(self, error: BackstayError) -> bool:
        """The state folder's disk is broken, and says so."""
        return any(window.kind == "broken" for window in self.windows) and error.exit_code in (
            9,
            11,
            14,
        )

    @asynccontextmanager
    async def _attached(self, joint: Joint, digests: Digests) -> AsyncIterator[None]:
        answers = cast(Answers, digests)
        self.checker.learn(answers._ledger, answers._identity.digest_key)
        async with joint.attached(digests):
            yield

    async def _clone(self) -> None:
        """The machine's state is copied, and a second daemon runs from the copy."""
        self.cloned = True
        self.faults += 1
        self.world.files.copy_tree(STATE, CLONE)
        joint = Joint()
        joint.publish(self.intake.joint.durable)
        await self._deliver(joint, CLONE, "clone")

    # what is observed

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
        stack.enter_context(mock.patch.object(pipeline.intake, "NbdServer", server))
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
        self.source_failed = True
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
        if error and not self._source_faults(process):
            raise Wrong(f"no harm: {sent.request.command} failed: {error}")
        took = trio.current_time() - sent.started
        if took > 2 * self.knobs.stall + SLACK:
            raise Wrong(f"no harm: command {sent.request.command} took {took:.1f} s")
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
        if journal._held > most:
            raise Wrong(f"bounded: the journal holds {journal._held} bytes of memory")
        if journal.retained > self.knobs.journal + most:
            raise Wrong(f"bounded: {journal.retained} bytes of journal are retained")

    # guests

    async def _guest(self, handler: SplitHandler, stopped: trio.Event) -> None:
        dice = random.Random(self.dice.getrandbits(30))
        guest = Guest(self.knobs, dice)
        while not stopped.is_set() and self.quota > 0:
            await trio.sleep(dice.choice(self.knobs.pace))
            if self.frozen:
                await self.thawed.wait()
                continue
            batch, changes = guest.batch(handler.disk.size, self.quota)
            if not batch.requests or stopped.is_set():
                continue
            self.quota -= changes
            self.made += changes
            exchange = Exchange(handler.disk.name, batch.requests, self)
            self.exchanges.add(exchange)
            PRESENT.set(exchange)
            leaves_early = not self.quiet and dice.random() < self.knobs.leave
            patience = dice.choice((0, 0.0005, 0.004, 0.03)) if leaves_early else LONG
            try:
                with trio.move_on_after(patience):
                    await handler.execute(batch, exchange)
                    await exchange.over.wait()
            finally:
                batch.buffer.release()
                self.exchanges.discard(exchange)
            self._after(changes)

    def _after(self, changes: int) -> None:
        """Some more writes were made: what is planned for now?"""
        self.progress += changes
        while self.triggers and self.triggers[0][0] <= self.progress:
            self.triggers.pop(0)[1]()

    # marks

    async def _mark_now_and_then(self) -> None:
        dice = random.Random(self.dice.getrandbits(30))
        if dice.random() >= self.knobs.marks:
            return
        while True:
            await trio.sleep(dice.choice((0.5, 3, 20)))
            await self._mark(dice)

    async def _mark(self, dice: random.Random) -> None:
        was: dict[str, bytes] = {}
        holds = dice.random() < 0.7

        async def freeze() -> None:
            self.frozen += 1
            while any(not exchange.over.is_set() for exchange in self.exchanges):
                await trio.sleep(0.01)
            was.update(self._sources())

        async def thaw() -> bool:
            if not holds:
                self._thaw()
                await trio.sleep(dice.choice((0.01, 1)))
                return False
            self._thaw()
            return True

        hooks: tuple[Callable[[], Awaitable[Any]] | None, ...] = (freeze, thaw)
        if dice.random() < 0.3:
            hooks = (None, None)
        point = await self.intake.mark("m", *cast(Any, hooks))
        if not point.seq:
            return
        if point.grade == "app" and (not holds or hooks[0] is None):
            raise Wrong("R20: a mark whose freeze did not hold is an application's")
        if hooks[0] is not None:
            self.checker.frozen[point.seq] = was

    def _thaw(self) -> None:
        self.frozen -= 1
        if not self.frozen:
            self.thawed.set()
            self.thawed = trio.Event()
