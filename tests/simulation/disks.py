"""A machine whose disks come, grow, change their source and go while guests write, from one seed.

As ``story``: virtual time, a page cache, a process that may end at any file operation, with or
without the power. What is checked: every consistent point holds, for the disks of one moment, what
they held at some moment of their history; and once all is quiet the newest point is the
configuration's disks as they are.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import trio
import trio.testing
from xxhash import xxh3_128_digest

from pipeline.config.model import (
    Cache,
    Capture,
    Config,
    Daemon,
    Disk,
    Machine,
    Pipeline,
    Ship,
    Vault,
)
from pipeline.delivery import Delivery
from pipeline.intake import MachineIntake
from pipeline.intake_disks import IntakeDisk
from pipeline.state import StateFolder
from stages import ports
from stages.cache.journal.writer import JournalLimits
from stages.capture.group.changing import look_for_growth, prepare
from stages.capture.group.group import Group
from stages.capture.group.limits import Limits
from stages.capture.group.opening import NamedDisk
from stages.capture.splitter.handler import SplitHandler
from stages.errors import NotFound, leaves
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Batch
from tests.ports.watched import InlineOffload, WatchedFiles
from tests.simulation.configured import Configured, joined
from tests.simulation.daemon import SimClock
from tests.simulation.disk_guests import Replies, draw_request
from tests.whole.reading import open_group, read_point
from tests.whole.world import NAME, STATE, Crash, Dice


class Disks(Configured):
    """Their lives, with guests and a delivery, and what the vault has of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config = _config()
        self._compared = 0  # points up to it

    def run(self) -> None:
        """Lives that end by crash, and a last one that ends well."""
        for _ in range(self.dice.randrange(1, 4)):
            self.fault_at = self.dice.randrange(60, 1200)
            self.live(self._busy)
            if self.dice.random() < 0.5:
                self.world.files.power_cut(self.dice.getrandbits(30))
            if self.dice.random() < 0.3:
                self._operator()  # while nothing runs
            trio.run(self._check_points, False)
        self.end()

    def end(self) -> None:
        """A last life, and the last look."""
        self.fault_at = None
        self.live(self._quiet)
        trio.run(self._check_points, True)

    def live(self, work: Any) -> None:
        self.operations, self.dead, self.group = 0, False, None
        self._note()
        kernel: Any = trio._core._run
        clock = trio.testing.MockClock(autojump_threshold=0)
        with (
            mock.patch.object(kernel, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
            self.world.stores(lambda _: self.world.store),
        ):
            kernel._r.seed(self.seed)
            try:
                trio.run(work, clock=clock)
            except (Crash, BaseExceptionGroup) as raised:
                ours = (Crash, RuntimeError) if self.dead else Crash
                if not self.dead or any(not isinstance(leaf, ours) for leaf in leaves(raised)):
                    raise
        self.group = None
        self.world.files.process_died()

    # its life

    async def _busy(self) -> None:
        await self._process(quiet=False)

    async def _quiet(self) -> None:
        with trio.fail_after(7200):
            await self._process(quiet=True)

    async def _process(self, *, quiet: bool) -> None:
        machine = self._machine()
        state = StateFolder.open(machine, STATE, lock=False)
        intake = await MachineIntake.open(
            machine,
            state.intake_folder(NAME),
            NAME,
            [IntakeDisk(name, path, "") for name, path in self.wanted.items()],
            Limits(journal=self.dice.choice([300_000, 64 << 20]), cool=2.0),
            journal=JournalLimits(memory=1 << 20, file=40_000, sync_seconds=0.3),
        )
        group = self.group = intake.group
        taken = group._take_disks

        def noted(*args: Any) -> None:
            self._note()
            taken(*args)
            self._note()

        with mock.patch.object(group, "_take_disks", noted):
            async with trio.open_nursery() as nursery:
                await nursery.start(group.run)
                nursery.start_soon(self._deliver, machine, state, intake)
                async with trio.open_nursery() as guests:
                    for _ in range(2):
                        guests.start_soon(self._guest, group)
                    for _ in range(2 if quiet else self.changes):
                        await trio.sleep(self.dice.choice([0, 0.1, 1, 20]))
                        self._operator()
                        await self._change(machine, group)
                    self.done = True
                if quiet:
                    await self._becomes_quiet(intake)
                nursery.cancel_scope.cancel()

    async def _becomes_quiet(self, intake: MachineIntake) -> None:
        for _ in range(6000):
            if intake.status().state == "replicating":
                break
            await trio.sleep(1)
        assert intake.status().state == "replicating", intake.status()
        point = await intake.mark("end")
        assert point.seq, point.reason

    async def _change(self, machine: ports.Machine, group: Group) -> None:
        """As a reload does it: clients of what goes leave first."""
        began = self.operations
        if self.dice.random() < 0.2:
            grown, _ = await look_for_growth(machine, group)
            await grown.apply()
        named = [NamedDisk(name, path) for name, path in self.wanted.items()]
        prepared = await prepare(machine, group, named)
        self.leaving = {group.disks[number].name for number in prepared.plan.gone}
        while self.writing & self.leaving:  # noqa: ASYNC110 - time is virtual
            await trio.sleep(0.01)
        if prepared.changes:
            await prepared.apply()
        self.leaving = set()
        self.spans.append((began, self.operations))

    def _machine(self) -> ports.Machine:
        self.done, self.writing, self.leaving = False, set[str](), set[str]()
        files = WatchedFiles(self._around, self.world.files)
        return ports.Machine(SimClock(), InlineOffload(), Dice(self.dice.getrandbits(30)), files)

    async def _deliver(
        self, machine: ports.Machine, state: StateFolder, intake: MachineIntake
    ) -> None:
        while True:
            delivery = Delivery(
                machine,
                self.config,
                NAME,
                state,
                intake.joint,
                intake.joint.attached,
                keep_seconds=3.0,
            )
            with trio.move_on_after(self.dice.choice([2, 10, 1000])):
                await delivery.run()
            await trio.sleep(self.dice.choice([0, 1, 20]))

    async def _guest(self, group: Group) -> None:
        while not self.done:
            await trio.sleep(self.dice.choice([0, 0.01, 0.2, 3]))
            disks = [
                disk
                for disk in group.disks.values()
                if disk.name not in self.leaving | self.writing
            ]
            if not disks:
                continue
            disk = self.dice.choice(disks)
            self.writing.add(disk.name)
            handler = SplitHandler(disk, group.nursery)
            replies = Replies()
            buffer = ReceiveBuffer(1 << 20, lambda _: None)
            request = draw_request(self.dice, buffer, handler.info.size)
            await handler.execute(Batch([request], [], buffer, 0, 0), replies)
            while not replies.done_count:
                replies.moved = trio.Event()
                await replies.moved.wait()
            assert self.dead or not replies.failed
            buffer.release()
            self.writing.discard(disk.name)

    # what the vault holds

    async def _check_points(self, final: bool) -> None:
        try:
            group = await open_group(self.world.store, self.world.key)
        except NotFound:
            assert not final
            return
        newest: dict[str, bytes] = {}
        tail = await group.log.tail()
        # Objects do not change: what was compared after one life is read again only at the end.
        for seq in range(1 if final else self._compared + 1, tail + 1):
            if not (await group.log.signed(seq)).header.consistent:
                continue
            newest = await read_point(group, seq)
            held = joined({name: xxh3_128_digest(data) for name, data in newest.items()})
            assert held in self.states, f"point #{seq} of {sorted(newest)} never was"
        self._compared = tail
        if final:
            files = self.world.files
            assert newest == {name: files.read(at, 1 << 30) for name, at in self.wanted.items()}


def _config() -> Config:
    small = Pipeline.model_construct(
        capture=Capture.model_construct(workers=0),
        cache=Cache.model_construct(seal_bytes=128 << 10, seal_after=1),
        ship=Ship.model_construct(in_flight=2, inline=16 << 10),
    )
    disks = {"root": Disk(path="/disks/1", listen="unix:/x.sock", capture="nbd")}
    config = Config(
        daemon=Daemon(state=STATE),
        vaults={"v": Vault(url="file:/vault", trust="/trust.pub")},
        machines={NAME: Machine(vault="v", disks=disks)},
    )
    return config.model_copy(update={"pipelines": {"default": small}})
