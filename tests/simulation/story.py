"""A story: the lives of one machine, from one seed.

Intake and delivery are processes of their own on one file system with a page cache, under one
virtual clock; the vault is a store that fails. Lives end by a kill, a power cut, a stop or a
cancellation; delivery is killed much more often. The last life has no faults and must heal.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import trio
import trio.testing

from pipeline.intake import MachineIntake
from pipeline.intake_disks import IntakeDisk
from pipeline.state import StateFolder
from stages.cache.journal.writer import JournalLimits, JournalWriter
from stages.capture.group.limits import Limits
from stages.errors import leaves
from tests.simulation.clients import Clients
from tests.simulation.daemon import Killed, Process, Window
from tests.simulation.deliveries import Deliveries
from tests.simulation.failovers import Failovers
from tests.simulation.guests import (
    Wrong,
)
from tests.simulation.observer import Observer
from tests.simulation.scene import LONG
from tests.whole.world import NAME, STATE


class Story(Observer, Deliveries, Clients, Failovers):
    """Tell it with ``run``; ``Wrong`` or another ``AssertionError`` says which rule broke."""

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

    def forget(self) -> None:
        """Let go of its disks: tasks of processes that were killed keep the story itself alive."""
        nodes = [node for node in self.world.files.names.values() if node is not None]
        for node in nodes:
            vars(node).clear()
        self.world.files.names.clear()
        for part in (self.world, self.model, self.checker.image, self.checker, self):
            vars(part).clear()

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
            if not await self.comes_back():
                self.trace.note("life", "its listeners stay closed")
                return
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
                if self.knobs.failovers and not self.quiet:
                    nursery.start_soon(self._fail_over_now_and_then)
                if self.knobs.orders and not self.quiet:
                    nursery.start_soon(self._order_now_and_then)
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
            Limits(
                knobs.journal,
                cool=knobs.cool,
                stall=knobs.stall,
                stretch=knobs.stretch,
                scrub=knobs.scrub,
            ),
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
        intake.group.scrub.on_mismatch = self.mismatched
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
            self.cut = True
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
        if self.knobs.scrub and dice.random() < self.knobs.rot:
            self.triggers.append((dice.randrange(max(1, at)), self.rot))
        self.triggers.sort(key=lambda one: one[0])

    def _trouble(self, kind: str, seconds: float) -> None:
        now = trio.current_time()
        self.faults += 1
        self.windows.append(Window(kind, now, now + seconds))

    async def _scrubbed(self) -> None:
        """What has changed without a write is found in a pass, and corrected in a scan."""
        group = self.intake.group
        if not self.knobs.scrub or self.fenced:
            return
        passes = group.scrub.status().passes
        while group.scrub.status().passes < passes + 2 or group.gap.is_open:  # noqa: ASYNC110
            await trio.sleep(1)

    async def _heal(self) -> None:
        """Without faults everything becomes well again."""
        while self.quota > 0 or self.exchanges:  # noqa: ASYNC110
            await trio.sleep(1)
        for store in self.late:
            await store.settle()
        while not self.fenced and self.intake.group.gap.is_open:  # noqa: ASYNC110
            await trio.sleep(1)
        await self._scrubbed()
        while not self.fenced:
            with trio.move_on_after(600):
                point = await self.intake.mark("end")
                if point.seq:
                    return
            if self.intake.group.gap.is_open:
                raise Wrong("heals: a gap opens without a fault")
