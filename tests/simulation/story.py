"""Intake and delivery of one machine in one process, from one seed: guests, scans, crashes.

Time is virtual, files have a page cache, and the whole process may end at any file or store
operation, with or without the power. What is checked: every consistent point is exactly what the
source held at some moment of its history (the state after some prefix of its writes), and once all
is quiet the newest point is what the source holds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import trio
import trio.testing
from blake3 import blake3

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
from pipeline.intake import IntakeDisk, MachineIntake
from pipeline.state import StateFolder
from stages import ports
from stages.cache.journal.writer import JournalLimits
from stages.capture.group.group import Limits
from stages.capture.splitter.handler import SplitHandler
from stages.errors import NotFound, leaves
from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Batch, Request
from stages.stream import REGION
from tests.ports.watched import InlineOffload, WatchedFiles
from tests.whole.reading import open_group, read_point
from tests.whole.world import NAME, STATE, YEAR_2100, Crash, Dice, World

SIZE = REGION + 24 * BLOCK + 512  # two regions, the last block cut short
PATH = "/disks/root"
HOT = 40  # blocks that guests like to write to, so that writes meet


class SimClock:
    """trio's virtual time."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return int((YEAR_2100 + trio.current_time()) * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class Replies:
    """What a client hears."""

    def __init__(self) -> None:
        self.done_count = self.failed = 0
        self.moved = trio.Event()

    def done(self, request: Request) -> None:
        self.done_all([request])

    def done_all(self, requests: Any) -> None:
        self.done_count += len(requests)
        self.moved.set()

    def data(self, request: Request, parts: Any) -> None:
        self.done_all([request])

    def extents(self, request: Request, extents: Any) -> None:
        self.done_all([request])

    def fail(self, request: Request, error: int, reason: str) -> None:
        self.failed += 1
        self.done_all([request])


@dataclass
class Story:
    """One seed. ``states``: digests of all that the source ever held."""

    seed: int
    writes: int = 60
    states: set[bytes] = field(default_factory=set)
    lives: int = 0
    fault_at: int | None = None
    operations: int = 0
    dead: bool = False

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.world = World(self.seed)
        content = bytearray(SIZE)
        for _ in range(20):
            at = self.dice.randrange(SIZE // BLOCK) * BLOCK
            content[at : at + BLOCK] = self.dice.randbytes(BLOCK)
        self.world.files.put(PATH, bytes(content), sparse=False)
        self.config = _config()

    def run(self) -> None:
        """Lives that end by crash, and a last one that ends well."""
        for _ in range(self.dice.randrange(1, 4)):
            self.fault_at = self.dice.randrange(20, 900)
            self._live(self._busy)
            self.world.files.process_died()
            if self.dice.random() < 0.6:
                self.world.files.power_cut(self.dice.getrandbits(30))
            self._check()
        self.fault_at = None
        self._live(self._quiet)
        self._check(final=True)

    def _live(self, work: Any) -> None:
        self.operations, self.dead = 0, False
        self.lives += 1
        self._note()
        kernel: Any = trio._core._run
        clock = trio.testing.MockClock(autojump_threshold=0)
        with (
            mock.patch.object(kernel, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
            self.world.stores(lambda _: self.world.store),
        ):
            kernel._r.seed(self.seed * 101 + self.lives)
            try:
                trio.run(work, clock=clock)
            except (Crash, BaseExceptionGroup) as raised:
                # In a process that dies, what is told of it depends on who is told first.
                ours = (Crash, RuntimeError) if self.dead else Crash
                unexpected = [leaf for leaf in leaves(raised) if not isinstance(leaf, ours)]
                if unexpected or not self.dead:
                    raise
        self.world.files.process_died()

    def _around(self, name: str, path: str, call: Any) -> Any:
        """Every file operation: the source's history, and where the process ends."""
        if name != "close":
            if self.dead:
                raise Crash("a dead process writes")
            self.operations += 1
            if self.operations == self.fault_at:
                if self.dice.random() < 0.5:
                    call()
                    self._note()
                self.dead = True
                raise Crash("the process was killed")
        found = call()
        if path == PATH and name in ("pwrite", "punch"):
            self._note()
        return found

    def _note(self) -> None:
        digest = blake3(self.world.files.read(PATH, SIZE)).digest()
        self.states.add(digest)

    def _machine(self) -> ports.Machine:
        files = WatchedFiles(self._around, self.world.files)
        return ports.Machine(SimClock(), InlineOffload(), Dice(self.dice.getrandbits(30)), files)

    async def _busy(self) -> None:
        await self._process(quiet=False)

    async def _quiet(self) -> None:
        with trio.fail_after(3600):
            await self._process(quiet=True)

    async def _process(self, *, quiet: bool) -> None:
        machine = self._machine()
        state = StateFolder.open(machine, STATE, lock=False)
        intake = await MachineIntake.open(
            machine,
            state.intake_folder(NAME),
            NAME,
            [IntakeDisk("root", PATH, "")],
            Limits(journal=self.dice.choice([300_000, 64 << 20]), cool=2.0),
            journal=JournalLimits(memory=1 << 20, file=40_000, sync_seconds=0.3, ahead=4096),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(intake.group.run)
            nursery.start_soon(self._deliver, machine, state, intake)
            (disk,) = intake.group.disks.values()
            handler = SplitHandler(disk, intake.group.nursery)
            async with trio.open_nursery() as guests:
                for _ in range(2):
                    guests.start_soon(self._guest, handler, self.writes // (4 if quiet else 1))
            if quiet:
                for _ in range(3000):
                    if intake.status().state == "replicating":
                        break
                    await trio.sleep(1)
                assert intake.status().state == "replicating", intake.status()
                point = await intake.mark("end")
                assert point.seq, point.reason
            nursery.cancel_scope.cancel()

    async def _deliver(
        self, machine: ports.Machine, state: StateFolder, intake: MachineIntake
    ) -> None:
        """Delivery that is killed and comes back."""
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

    async def _guest(self, handler: SplitHandler, writes: int) -> None:
        for _ in range(writes):
            await trio.sleep(self.dice.choice([0, 0, 0.01, 0.2, 3]))
            replies = Replies()
            buffer = ReceiveBuffer(1 << 20, lambda _: None)
            requests: list[Request] = []
            at = 0
            for cookie in range(self.dice.randrange(1, 4)):
                request, at = self._request(buffer, at, cookie)
                requests.append(request)
            await handler.execute(Batch(requests, [], buffer, 0, 0), replies)
            while replies.done_count < len(requests):
                replies.moved = trio.Event()
                await replies.moved.wait()
            assert self.dead or not replies.failed
            buffer.release()

    def _request(self, buffer: ReceiveBuffer, at: int, cookie: int) -> tuple[Request, int]:
        dice = self.dice
        command = dice.choice(
            [wire.CMD_WRITE] * 6 + [wire.CMD_FLUSH, wire.CMD_TRIM] + [wire.CMD_WRITE_ZEROES]
        )
        if command == wire.CMD_FLUSH:
            return Request(command, 0, cookie, 0, 0, memoryview(b""), at), at
        base = dice.choice([0, REGION - 20 * BLOCK])
        offset = base + dice.randrange(HOT) * BLOCK
        length = dice.randrange(1, 4) * BLOCK
        if dice.random() < 0.2:
            offset, length = offset + dice.choice([0, 512, 700]), dice.choice([1, 512, 5000])
        length = min(length, SIZE - offset)
        if command != wire.CMD_WRITE:
            return Request(command, 0, cookie, offset, length, memoryview(b""), at), at
        at += 28
        buffer.view[at : at + length] = dice.randbytes(length)
        payload = buffer.view[at : at + length]
        flags = wire.FLAG_FUA if dice.random() < 0.1 else 0
        return Request(command, flags, cookie, offset, length, payload, at), at + length

    def _check(self, *, final: bool = False) -> None:
        """See the module."""
        trio.run(self._check_points, final)

    async def _check_points(self, final: bool) -> None:
        try:
            group = await open_group(self.world.store, self.world.key)
        except NotFound:
            assert not final
            return  # the first life ended before it began
        newest = None
        for seq in range(1, await group.log.tail() + 1):
            if not (await group.log.signed(seq)).header.consistent:
                continue
            (content,) = (await read_point(group, seq)).values()
            newest = blake3(content).digest()
            assert newest in self.states, f"point #{seq} never was on the source"
        if final:
            assert newest == blake3(self.world.files.read(PATH, SIZE)).digest()


def _config() -> Config:
    small = Pipeline.model_construct(
        capture=Capture.model_construct(workers=0),
        cache=Cache.model_construct(seal_bytes=128 << 10, seal_after=1),
        ship=Ship.model_construct(in_flight=2, inline=16 << 10),
    )
    disks = {"root": Disk(path=PATH, listen="unix:/x.sock", capture="nbd")}
    config = Config(
        daemon=Daemon(state=STATE),
        vaults={"v": Vault(url="file:/vault", trust="/trust.pub")},
        machines={NAME: Machine(vault="v", disks=disks)},
    )
    return config.model_copy(update={"pipelines": {"default": small}})
