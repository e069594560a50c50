"""The delivery process: ships what intake has journalled, for all live machines, at low priority.

Run by the parent as ``python -m pipeline.daemon.delivery_main CONFIG``. Its standard input says
``drain`` when it should ship what there is and end, as SIGTERM does; it ends at once when its
parent does. Every change of a machine's state is a line of JSON on its standard output.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Any

import trio

from pipeline.assembly import vault_store
from pipeline.config import load
from pipeline.config.model import Config
from pipeline.daemon import lock
from pipeline.daemon.intake_main import SOCKET
from pipeline.daemon.link_client import IntakeGone, upstream
from pipeline.delivery import Delivery
from pipeline.notice import source_notices
from pipeline.retry import PROBE_SECONDS, PROBES, Ladder
from pipeline.state import StateFolder
from stages.errors import BackstayError, leaves
from stages.ports import Machine
from stages.stage import crew
from stages.stream import Position
from stages.system import this_machine
from stages.vault import layout

_NICE = 10
_THREADS = 6
_INTAKE_SECONDS = 0.5  # between two looks for an intake that is gone
_DRAIN_SECONDS = 600.0  # at most, whatever the parent waits for
_LOCK_SECONDS = 30.0  # for one before, whose parent was killed and which is on its way out
_PR_SET_DUMPABLE = 4

LOCK = "delivery.lock"
UNSHIPPED = 3
"""Exit code: it was drained, but not everything could be shipped."""


def main() -> int:
    """The process: 0 if all was shipped, ``UNSHIPPED``, or the code of an error."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    os.nice(_NICE)
    try:
        config = load(sys.argv[1])
        return 0 if trio.run(_deliver, this_machine(_THREADS), config) else UNSHIPPED
    except BackstayError as error:
        print(f"delivery: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return error.exit_code


@dataclass
class _Machine:
    """One machine's delivery over its lives."""

    ports: Machine
    config: Config
    name: str
    state: StateFolder
    draining: trio.Event
    ladder: Ladder = field(default_factory=Ladder)
    drained: bool = False

    async def run(self) -> None:
        """Deliver for ever; ends when drained, or by an error that does not heal by itself."""
        while True:
            try:
                await self._life()
            except IntakeGone:
                if self.draining.is_set():
                    return
                self.ladder = Ladder()
                await self.ports.clock.sleep(_INTAKE_SECONDS)
                continue
            except (BackstayError, BaseExceptionGroup) as raised:
                failed = _failure_of(raised)
                self.ladder = self.ladder.failed()
                if not failed.recoverable:
                    self._tell("failed", failed)
                    return
                self._tell("waiting", failed)
            if self.drained:
                self._tell("drained")
            if self.draining.is_set():
                return
            await self._wait()

    async def run_here(self) -> None:
        """``run``, unless the machine was failed over: intake does not serve it then either."""
        looked = await source_notices(self.ports, self.config, self.state, [self.name])
        notice = looked[self.name].notice
        if notice is None:
            await self.run()
        else:
            self._tell("failed", notice.error("open log", self.name))

    async def _life(self) -> None:
        """From connecting to the first error, or until drained."""
        async with upstream(f"{self.state.path}/{SOCKET}", self.name) as intake:
            delivery = Delivery(
                self.ports, self.config, self.name, self.state, intake, intake.attached
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, delivery)
                nursery.start_soon(delivery.run)
                await self.draining.wait()
                delivery.hurry()
                until: Position = await intake.newest()
                while not delivery.has_committed(until):
                    await self.ports.clock.sleep(0.05)
                self.drained = True
                nursery.cancel_scope.cancel()

    async def _watch(self, delivery: Delivery) -> None:
        """A commit begins the ladder anew; each is noted for ``status``."""
        while True:
            await delivery.next_commit()
            self.ladder = Ladder()
            status = delivery.status()
            self._tell(
                "committed", seq=status.seq, stamp=status.stamp, consistent=status.consistent
            )

    async def _wait(self) -> None:
        """The ladder's step, cut short by a vault that answers again, or by a drain."""
        async with trio.open_nursery() as nursery:

            async def until_drain() -> None:
                await self.draining.wait()
                nursery.cancel_scope.cancel()

            async def until_well() -> None:
                good = 0
                while good < PROBES:
                    await self.ports.clock.sleep(PROBE_SECONDS)
                    good = good + 1 if await self._probe() else 0
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_drain)
            nursery.start_soon(until_well)
            await self.ports.clock.sleep(self.ladder.delay)
            nursery.cancel_scope.cancel()

    async def _probe(self) -> bool:
        """Does the vault answer? Reads only."""
        url = self.config.vault_of(self.config.machine(self.name)).url
        try:
            store = vault_store(self.ports, url, patience=0.0)
            try:
                return await store.info(layout.VAULT) is not None
            finally:
                await store.aclose()
        except BackstayError:
            return False

    def _tell(self, state: str, error: BackstayError | None = None, **more: Any) -> None:
        fields: dict[str, Any] = {"machine": self.name, "state": state, **more}
        if error is not None:
            fields |= {
                "error": type(error).__name__,
                "message": str(error),
                "hint": error.hint,
                "recoverable": error.recoverable,
                "attempt": self.ladder.attempt,
                "again_in": self.ladder.delay if error.recoverable else None,
            }
        print(json.dumps(fields), flush=True)  # noqa: T201 - the parent reads it


def _failure_of(raised: BaseException) -> BackstayError:
    for leaf in leaves(raised):
        if isinstance(leaf, BackstayError):
            return leaf
    raise raised


async def _deliver(ports: Machine, config: Config) -> bool:
    """Until drained: True if everything was shipped."""
    state = StateFolder.open(ports, config.daemon.state, lock=False)
    draining = trio.Event()
    machines = [
        _Machine(ports, config, name, state, draining)
        for name, machine in config.machines.items()
        if machine.live
    ]
    async with crew() as nursery:
        nursery.start_soon(_hear_parent, draining, nursery.cancel_scope)
        nursery.start_soon(_hear_signals, draining)
        await _wait_for_lock(ports, f"{state.path}/{LOCK}")
        with lock.held(ports.files, f"{state.path}/{LOCK}", "delivery"):
            async with trio.open_nursery() as running:
                for machine in machines:
                    running.start_soon(machine.run_here)
                await draining.wait()  # also if all have failed for good: their states stay shown
                running.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
        nursery.cancel_scope.cancel()
    return all(machine.drained for machine in machines)


async def _wait_for_lock(ports: Machine, path: str) -> None:
    """Two of them would write one record of the vault. Raises ``StateLocked`` after a while."""
    with trio.move_on_after(_LOCK_SECONDS):
        while not lock.is_free(ports.files, path):
            await ports.clock.sleep(_INTAKE_SECONDS)


async def _hear_signals(draining: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            draining.set()


async def _hear_parent(draining: trio.Event, scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as said:
        while data := await said.receive_some(4096):
            if b"drain" in data:
                draining.set()
    scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
