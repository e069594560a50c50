"""Delivery in a story: it dies and comes back, and sometimes there are two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import trio
import trio.testing

from pipeline.delivery import Delivery
from pipeline.state import StateFolder
from pipeline.vault_disks import Answers
from stages.errors import BackstayError, Fenced, leaves
from stages.joint import Joint
from stages.stream import Digests
from tests.simulation.daemon import Killed, Process
from tests.simulation.guests import (
    Wrong,
)
from tests.simulation.scene import CLONE, LONG, Scene
from tests.whole.world import NAME, STATE


class Deliveries(Scene):
    """Lives of delivery, and which of its errors may be."""

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
            if isinstance(leaf, Fenced) and self.tried:
                continue  # until a cancel
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
