"""A whole deployment in memory: disks, state folder, vault; processes that can die at any step."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

import trio

from pipeline import assembly
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
from pipeline.protect import Outcome, protect_once
from pipeline.state import StateFolder
from stages import ports
from stages.errors import BackstayError
from stages.ports import Buffer
from stages.store.faults import NO_FAULT, Fault, FaultPlan, FaultStore, Operation, Rule
from stages.store.memory import MemoryStore
from stages.store.port import ObjectInfo, ObjectStore, Put
from stages.vault import layout
from stages.vault.charter import Charter, Member, encode
from stages.vault.keyfile import PrivateKey, encode_public, generate
from tests.ports.watched import InlineOffload, Tripwire, WatchedFiles
from tests.store.doubles import StillClock
from tests.whole.memfiles import MemFiles

T = TypeVar("T")

NAME = "m"
STATE = "/state"
YEAR_2100 = 4102444800.0  # no file was changed a moment ago
KIB = 1 << 10


class Crash(BackstayError):
    """The process ends here; an error class only so that it can be injected like one."""


class Stopped(Exception):
    """The run was cancelled."""


class Dice:
    """Entropy from a seed."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


def simulate(seed: int, work: Callable[..., Awaitable[T]], *args: Any) -> T:
    """``trio.run`` with an order of tasks that depends on the seed only."""
    run: Any = trio._core._run
    with mock.patch.object(run, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True):
        run._r.seed(seed)
        return trio.run(work, *args)


@dataclass
class Tuning:
    """What is made small, so that little disks have many segments, pages and references."""

    seal_bytes: int = 128 * KIB
    dedup: int = 1 << 16
    inline: int = 16 * KIB
    in_flight: int = 2
    retried: bool = True


class WatchedStore(MemoryStore):
    """Remembers in which attempt each epoch was begun; abandoned puts of the dead may arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.attempt = 0
        self.begun: dict[int, int] = {}
        self.abandoned: list[FaultStore] = []
        self.arrive_in: int | None = None  # so many calls from now

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        await self._tick()
        found = await super().put(key, parts)
        if key.endswith("/term") and found is Put.CREATED:
            self.begun[int(key.split("/")[-2])] = self.attempt
        return found

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        await self._tick()
        return await super().get(key, offset, length)

    async def info(self, key: str) -> ObjectInfo | None:
        await self._tick()
        return await super().info(key)

    async def _tick(self) -> None:
        if self.arrive_in is None:
            return
        self.arrive_in -= 1
        if self.arrive_in < 0:
            self.arrive_in = None
            while self.abandoned:
                await self.abandoned.pop().settle()


@dataclass
class Process:
    """One life of the daemon. After ``die`` nothing it does has any effect."""

    files: MemFiles
    store: ObjectStore
    clock: StillClock
    entropy: Dice
    rule: Rule = lambda _: None
    around: Callable[[str, str, Callable[[], object]], object] = lambda _name, _path, call: call()
    dead: bool = False
    operations: list[Operation] = field(default_factory=list)
    cancel_at: int | None = None  # a store operation
    opened: list[FaultStore] = field(default_factory=list)

    def die(self) -> Crash:
        self.dead = True
        return Crash("the process was killed")

    def __post_init__(self) -> None:
        self.scope = trio.CancelScope()

    @property
    def machine(self) -> ports.Machine:
        return ports.Machine(
            self.clock, InlineOffload(), self.entropy, WatchedFiles(self._touch, self.files)
        )

    def open_store(self) -> FaultStore:
        opened = FaultStore(self.store, FaultPlan(self._fault), self.clock)
        self.opened.append(opened)
        return opened

    def _fault(self, operation: Operation) -> Fault | None:
        if self.dead:
            raise Crash("a dead process speaks")
        self.operations.append(operation)
        if operation.number == self.cancel_at:
            self.scope.cancel()
        fault = self.rule(operation) or NO_FAULT
        if Crash in (fault.before, fault.after) or fault.late:
            self.dead = True
        return fault

    def _touch(self, name: str, path: str, call: Callable[[], Any]) -> Any:
        if self.dead and name != "close":
            raise Crash("a dead process writes")
        return self.around(name, path, call)


class PowerCut(Tripwire):
    """The process ends at a step, before or after its effect."""

    def __init__(self, process: Process, at: int, *, after: bool):
        super().__init__()
        self._process = process
        self._at = at
        self._after = after

    def __call__(self, name: str, path: str, call: Callable[[], T]) -> T:
        self.names.append(name)
        if len(self.names) - 1 != self._at:
            return call()
        if self._after:
            call()
        raise self._process.die()


class World:
    """Disks, files, a vault, and what the disks held at each attempt to protect them."""

    def __init__(self, seed: int = 0, tuning: Tuning | None = None):
        self.seed = seed
        self.tuning = tuning or Tuning()
        self.disks: dict[str, bytearray] = {}
        self.sparse: set[str] = set()
        self.files = MemFiles()
        self.store = WatchedStore()
        self.clock = StillClock(now=YEAR_2100)
        self.entropy = Dice(seed)
        self.key: PrivateKey = generate("operator", self.entropy)
        self.attempts: list[dict[str, bytes]] = []
        self.settled: dict[int, int] = {}  # commit -> attempt, as reported
        self.left_open: list[str] = []  # by the last process
        self._found()

    def protect(self, process: Process | None = None, *, accept_shrink: bool = True) -> Outcome:
        """One run, in a process of its own. Its success is remembered."""
        process = process or self.process()
        self.begin()
        try:
            outcome = simulate(self.seed + len(self.attempts), self._run, process, accept_shrink)
        finally:
            self.left_open = list(self.files.opened)
            process.dead = True
            self.files.process_died()
        assert outcome.consistent
        self.settled[outcome.seq] = self.store.attempt
        return outcome

    def begin(self) -> None:
        """A new attempt: what the disks hold now is what its points must hold."""
        self.place_disks()
        self.attempts.append({name: bytes(data) for name, data in self.disks.items()})
        self.store.attempt = len(self.attempts) - 1

    def process(self, rule: Rule = lambda _: None) -> Process:
        return Process(self.files, self.store, self.clock, self.entropy, rule)

    def place_disks(self) -> None:
        for name, data in self.disks.items():
            self.files.put(f"/disks/{name}", bytes(data), sparse=name in self.sparse)

    async def _run(self, process: Process, accept_shrink: bool) -> Outcome:
        with self.stores(lambda _: process.open_store()), process.scope:
            machine = process.machine
            folder = StateFolder.open(machine, STATE)
            try:
                return await protect_once(
                    machine, self.config(STATE), NAME, folder, accept_shrink=accept_shrink
                )
            finally:
                folder.close()
        raise Stopped

    @contextmanager
    def stores(self, of: Callable[[ports.Machine], ObjectStore]) -> Iterator[None]:
        """While it lasts, every vault is opened by ``of``."""

        def open_store(url: str, machine: ports.Machine, base: str = ".") -> ObjectStore:
            return of(machine)

        def bare(inner: ObjectStore, *_: Any, **__: Any) -> ObjectStore:
            return inner

        with mock.patch.object(assembly, "open_store", open_store):
            if self.tuning.retried:
                yield
            else:
                with mock.patch.object(assembly, "RetryStore", bare):
                    yield

    def config(self, state: str, folder: str = "/disks") -> Config:
        tuning = self.tuning
        small = Pipeline.model_construct(
            capture=Capture.model_construct(workers=0, batch=64 * KIB, dedup=tuning.dedup),
            cache=Cache.model_construct(seal_bytes=tuning.seal_bytes),
            ship=Ship.model_construct(in_flight=tuning.in_flight, inline=tuning.inline),
        )
        disks = {name: Disk(path=f"{folder}/{name}", capture="scan") for name in self.disks}
        config = Config(
            daemon=Daemon(state=state),
            vaults={"v": Vault(url="file:/vault", trust="/trust.pub")},
            machines={NAME: Machine(vault="v", disks=disks)},
        )
        return config.model_copy(update={"pipelines": {"default": small}})

    def _found(self) -> None:
        self.files.mkdir("/disks")
        self.files.sync_dir("/")
        process = self.process()
        folder = StateFolder.open(process.machine, STATE)
        charter = Charter(
            vault=self.entropy.token(16),
            operator=self.key.signer.public,
            generation=1,
            cipher="aegis256",
            recipients=(Member(self.key.box.public, "operator"),),
            writers=(Member(folder.signer().public, "daemon"),),
        )
        folder.close()
        self.key = self.key.pinned(charter.pin())
        self.files.put("/trust.pub", encode_public(self.key.public))
        data = encode(charter, self.key.signer)
        simulate(0, self.store.put, layout.VAULT, [data])
