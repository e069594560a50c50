"""What all parts of a story share: the machine, its model, and the life that is being told."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio
import trio.testing

from pipeline.intake import MachineIntake
from stages.capture.live.scrub import Mismatch
from stages.capture.splitter.handler import SplitHandler
from stages.model import BLOCK
from stages.store.faults import FaultStore
from stages.stream import REGION
from tests.simulation.checker import Checker
from tests.simulation.daemon import Process, Trace, Window
from tests.simulation.guests import (
    Exchange,
    Witness,
    Wrong,
)
from tests.simulation.image import Image
from tests.simulation.knobs import Knobs, draw
from tests.simulation.model import Model
from tests.simulation.setting import configuration
from tests.whole.world import World

CLONE = "/clone"
SIZES = {"root": REGION + 24 * BLOCK + 512, "data": 30 * BLOCK + 512}
SCANNED = 400_000  # bytes of one scan's record, which is taken whole when nothing else is held
LONG = 4 * 3600.0  # virtual seconds: what has not happened by then never will
SLACK = 3.0  # seconds of slow threads beside the bound of a stall


class Scene(Witness):
    """The state of a story, and of its present life."""

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
        self.rotten: set[tuple[str, int]] = set()  # blocks that changed without a write, ever
        self.alarms = 0
        self.fence: int | None = None  # the newest commit when a failover was complete
        self.tried = False  # a failover was begun, ever
        self.group: bytes | None = None
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
        self.cut = False  # intake is cancelled: who waits for an answer is told that it was
        self.quota = self.progress = 0
        self.triggers: list[tuple[int, Callable[[], None]]] = []
        self.ends = trio.Event()
        self.frozen = 0
        self.thawed = trio.Event()

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

    def _thaw(self) -> None:
        self.frozen -= 1
        if not self.frozen:
            self.thawed.set()
            self.thawed = trio.Event()

    # the rolling scrub

    def rot(self) -> None:
        """A block of a disk changes without a write."""
        path, name = self.dice.choice(list(self.paths.items()))
        offset = self.dice.randrange(self.sizes[name] // BLOCK) * BLOCK
        data = self.dice.randbytes(BLOCK)
        self.rotten.add((name, offset // BLOCK))
        self.world.files.open_write(path).pwrite(offset, data)
        self.model.rotted(name, offset, data)

    def mismatched(self, found: Mismatch) -> None:
        """The scrub says that blocks differ without a write."""
        self.alarms += 1
        false = [block for block in found.blocks if (found.name, block) not in self.rotten]
        if false:
            raise Wrong(f"R6: false alarm, blocks {false[:8]} of {found.name} were written")

    # what the other parts do

    def settled(self, seq: int) -> None:
        raise NotImplementedError

    def wrote(self, path: str, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def fsync_failed(self, path: str) -> None:
        raise NotImplementedError

    async def _guest(self, handler: SplitHandler, stopped: trio.Event) -> None:
        raise NotImplementedError
