"""Failovers in a story: an operator with the key, on another host, at any moment.

What the vault says is the truth that everybody follows. A source that was failed over serves its
guest and ships nothing more; one that starts again is told, and is not opened; after a cancel it
goes on, and heals.
"""

from __future__ import annotations

import random

import trio

from pipeline.control.model import Operation
from pipeline.failover.model import PointKind, Wanted, Who
from pipeline.failover.operations import change_point, conclude, open_failover, test
from pipeline.recovery import Access
from stages.errors import BackstayError
from stages.recover.opened import Group, open_vault
from stages.store.retry import RetryStore
from stages.vault.failover_log import failed_over, load_failovers
from stages.vault.failover_state import Phase
from tests.failover.scene import StoreAccess
from tests.simulation.guests import Wrong
from tests.simulation.scene import Scene
from tests.simulation.stores import Twice, rule_of
from tests.whole.world import NAME

_HOST = Who("ann", "replica7")


class Failovers(Scene):
    """Beside the scene: ``fence``, the newest commit when a failover was complete; ``tried``: one
    was ever begun."""

    async def _fail_over_now_and_then(self) -> None:
        dice = random.Random(self.dice.getrandbits(30))
        if dice.random() >= self.knobs.failovers:
            return
        while True:
            await trio.sleep(dice.choice((0.5, 3, 20, 100)))
            await self._command(dice)

    async def _command(self, dice: random.Random) -> None:
        """One command of a person, at whom the vault may fail; it may be given again later."""
        group = await self._whole()
        if group is None or not group.tail:
            return
        access = self._access(dice)
        self.trace.note("operator", self.fence)
        try:
            match dice.randrange(8):
                case 0 | 1 | 2:
                    self.tried = True
                    await open_failover(access, NAME, self._wanted(dice), _HOST, planned=False)
                    self.fence = (await self._newest()).tail
                    self.faults += 1
                case 3:
                    await change_point(access, NAME, self._wanted(dice), _HOST)
                case 4 if dice.random() < 0.2:
                    await conclude(access, NAME, _HOST, operation=Operation.COMMIT_FAILOVER)
                case 5:
                    await test(access, NAME, Wanted(), _HOST)
                case 6:
                    await conclude(access, NAME, _HOST, operation=Operation.CLEANUP_TEST)
                case _:
                    await self._cancel(access)
        except BackstayError as error:
            self.trace.note("operator", type(error).__name__)

    async def _cancel(self, access: Access) -> None:
        """From the moment it is asked for, the source may be going on."""
        fence, self.fence = self.fence, None
        try:
            await conclude(access, NAME, _HOST, operation=Operation.CANCEL_FAILOVER)
        except BackstayError as error:
            if not error.recoverable:  # nothing was recorded
                self.fence = fence
            raise

    async def comes_back(self) -> bool:
        """May its listeners be opened? A source that was failed over is told that it was."""
        if not self.tried:
            return True
        if self.quiet:
            for late in self.late:
                await late.settle()
        group = await self._whole()
        if group is None:
            return True
        scope, charter = group.scope, (await open_vault(self.world.store, self.world.key)).charter
        phase = (await load_failovers(self.world.store, scope, charter)).state.phase
        if not phase.is_over:
            return True
        if await failed_over(self.world.store, scope.group, charter) is None:
            raise Wrong("R14: a source that comes back is not told of its failover")
        if phase is Phase.OPEN and (self.quiet or self.dice.random() < 0.5):
            await self._cancel(self._access(self.dice, faults=False))
            return True
        if self.quiet:
            self.fenced = True  # committed: production is elsewhere for good
        return False

    def settled(self, seq: int) -> None:
        """The source's daemon counts a commit as its own: one may have been on its way."""
        if self.fence is not None and seq > self.fence + 1:
            raise Wrong(f"R14: #{seq} was settled after the failover was complete at #{self.fence}")

    def _wanted(self, dice: random.Random) -> Wanted:
        if dice.random() < 0.5:
            return Wanted()
        return Wanted(PointKind.AT, dice.randrange(1, 12))

    def _access(self, dice: random.Random, *, faults: bool = True) -> Access:
        store, machine = self.world.store, self._new_process("operator", "/operator").machine
        if faults:
            process = self._new_process("operator", "/operator")
            rate = self.knobs.store_faults
            found = process.store(Twice(store, dice, rate / 8), rule_of(dice, rate))
            self.late.append(found)
            steady = RetryStore(found, machine.clock, machine.entropy, seconds=15.0)
            return StoreAccess(machine, "sim:", self.world.key, (), store=steady)
        return StoreAccess(machine, "sim:", self.world.key, (), store=store)

    async def _whole(self) -> Group | None:
        """The machine's group as anybody reads it; None before there is one."""
        try:
            return await self._newest()
        except BackstayError:
            return None

    async def _newest(self) -> Group:
        vault = await open_vault(self.world.store, self.world.key)
        if self.group is None:
            found = await vault.find(NAME)
            self.group = found.scope.group
            return found
        return await vault.group(self.group)
