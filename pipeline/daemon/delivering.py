"""Delivery of one machine over its lives: tried again on the ladder, paused, drained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from pipeline.config.model import Config
from pipeline.daemon.link_client import IntakeGone, RemoteUpstream, upstream
from pipeline.daemon.names import INTAKE_SOCKET
from pipeline.daemon.orders import Orders
from pipeline.daemon.probes import Probes
from pipeline.delivery import Delivery
from pipeline.hands import Hand, Held, take
from pipeline.lifecycle.verdicts import cause_of, hint_of
from pipeline.notice import source_notices
from pipeline.retry import Ladder, Steps, jittered
from pipeline.state import StateFolder
from pipeline.stores import VaultStores
from stages.errors import BackstayError, StateLocked, leaves
from stages.ports import Machine
from stages.stage import StageStatistics
from stages.stream import Position

INTAKE_SECONDS = 0.5  # between two looks for an intake that is gone


def say(fields: dict[str, Any]) -> None:
    """A line for the supervisor."""
    print(json.dumps(fields), flush=True)  # noqa: T201 - the supervisor reads it


@dataclass
class Delivering:
    """One machine. ``say`` hears every change of how it stands."""

    ports: Machine
    config: Config
    name: str
    state: StateFolder
    orders: Orders
    probes: Probes
    steps: Steps = field(default_factory=Steps)
    say: Callable[[dict[str, Any]], None] = say
    ladder: Ladder = field(default_factory=Ladder)
    stores: VaultStores | None = None  # shared by all machines
    drained: bool = False
    _due: float = 0.0  # monotonic time of the next life; infinite: when it is told to

    async def run(self, *, at_once: bool = False) -> None:
        """Deliver until drained. Errors are told and, if they may heal, tried again."""
        await self._recall(at_once=at_once)
        while True:
            if self.orders.paused():
                await self._paused()
                if self.orders.draining.is_set():
                    self.drained = True  # nobody wants it shipped
                    return
                continue
            await self._until_due()
            if self.orders.paused():
                continue
            last = self.orders.draining.is_set()
            if last and self._due == math.inf:
                return
            await self._try()
            if self.drained:
                self._tell("drained")
            if self.drained or last:
                return

    async def _paused(self) -> None:
        self._tell("paused")
        while self.orders.paused() and not self.orders.draining.is_set():
            await self.orders.changed()
        self._due = 0.0  # whoever resumes it wants to see how it goes

    async def _try(self) -> None:
        """One life, and what follows from its end."""
        if self.ladder.next_try_us is not None:
            await self._keep(self.ladder.trying())
        self._due = 0.0
        try:
            await self._life_until_paused()
        except (BackstayError, BaseExceptionGroup) as raised:
            failed = _failure_of(raised)
            if failed is None:
                raise
            if isinstance(failed, IntakeGone):
                self._due = self.ports.clock.monotonic() + INTAKE_SECONDS
                return
            await self._failed(failed)

    async def _life_until_paused(self) -> None:
        async with trio.open_nursery() as nursery:

            async def until_paused() -> None:
                await self.orders.until_paused()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_paused)
            await self._life()
            nursery.cancel_scope.cancel()

    async def _life(self) -> None:
        """From connecting to the first error, or until drained."""
        await self._not_failed_over()
        async with AsyncExitStack() as stack:
            stack.callback((await self._hand()).close)
            path = f"{self.state.path}/{INTAKE_SOCKET}"
            intake = await stack.enter_async_context(upstream(path, self.name))
            delivery = Delivery(
                self.ports,
                self.config,
                self.name,
                self.state,
                intake,
                intake.attached,
                stores=self.stores,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, delivery)
                nursery.start_soon(self._attached, intake)
                nursery.start_soon(delivery.run)
                await self.orders.draining.wait()
                delivery.hurry()
                until: Position = await intake.newest()
                while not delivery.has_committed(until):
                    await self.ports.clock.sleep(0.05)
                self.drained = True
                nursery.cancel_scope.cancel()

    async def _hand(self) -> Held:
        """It is this process's to ship, while this is held."""
        files, state, name = self.ports.files, self.state, self.name
        try:
            return await self.ports.offload.run(lambda: take(files, state, name, [Hand.DELIVERY]))
        except StateLocked as locked:  # a command exchanges its record: it is not captured either
            raise IntakeGone(str(locked), operation="deliver") from None

    async def _not_failed_over(self) -> None:
        """Nothing is shipped for a machine that runs elsewhere; intake does not serve it either."""
        looked = await source_notices(self.ports, self.config, self.state, [self.name])
        notice = looked[self.name].notice
        if notice is not None:
            raise notice.error("open log", self.name)

    async def _attached(self, intake: RemoteUpstream) -> None:
        """The vault has let it in, and intake's questions are answered."""
        await intake.wait_attached()
        self._tell("delivering")

    async def _watch(self, delivery: Delivery) -> None:
        """A commit begins the ladder anew; each is noted for ``status``."""
        while True:
            await delivery.next_commit()
            if self.ladder != Ladder():
                await self._keep(Ladder())
            status = delivery.status()
            self._tell(
                "committed",
                seq=status.seq,
                stamp=status.stamp,
                consistent=status.consistent,
                shipped_bytes=status.shipped,
                stages=[_stage(one) for one in status.stages],
            )

    # errors

    async def _failed(self, failed: BackstayError) -> None:
        cause = cause_of(failed)
        attempt = self.ladder.attempt + 1
        wait: float | None = None
        if cause.recoverable:
            wait = jittered(self.steps.after(attempt), self.ports.entropy.token(2))
        fields: dict[str, Any] = {
            "error": type(failed).__name__,
            "message": str(failed),
            "hint": hint_of(failed),
            "cause": cause.value,
            "recoverable": cause.recoverable,
            "exit_code": failed.exit_code,
            "attempt": attempt,
        }
        self.orders.retry = False  # it was for the life that has just ended
        self._due = math.inf if wait is None else self.ports.clock.monotonic() + wait
        await self._keep(self.ladder.failed(wait, self.ports.clock.wall_us(), fields))
        self._tell_error(wait)

    def _tell_error(self, wait: float | None) -> None:
        fields = self.ladder.error or {}
        state = "failed" if wait is None else "waiting"
        self._tell(state, **fields, again_in=wait, next_try_us=self.ladder.next_try_us)

    async def _until_due(self) -> None:
        """The ladder's step, cut short by a vault that answers again, an order, or a drain."""
        while not (self.orders.retry or self.orders.paused() or self.orders.draining.is_set()):
            left = self._due - self.ports.clock.monotonic()
            if left <= 0 or await self._waited(left):
                return

    async def _waited(self, left: float) -> bool:
        """True when the time has come, or the vault is back; False when there is an order."""
        come = False
        async with trio.open_nursery() as nursery:

            async def time() -> None:
                nonlocal come
                await self.ports.clock.sleep(left)
                come = True
                nursery.cancel_scope.cancel()

            async def well() -> None:
                nonlocal come
                url = self.config.vault_of(self.config.machine(self.name)).address
                await self.probes.until_well(url)
                come = True
                nursery.cancel_scope.cancel()

            if left < math.inf:
                nursery.start_soon(time)
            if self.ladder.next_try_us is not None:
                nursery.start_soon(well)
            await self.orders.changed()
            nursery.cancel_scope.cancel()
        return come

    # what is kept

    async def _recall(self, *, at_once: bool) -> None:
        """Where an earlier life stood: what it waited for goes on, what had failed for good is
        tried once, with whatever was put right meanwhile."""
        path = self._note
        with suppress(BackstayError):
            found = await self.ports.offload.run(lambda: self.state.noted(path))
            self.ladder = Ladder.of(found or {})
        if at_once or self.ladder.next_try_us is None:
            return
        left = self.ladder.left(self.ports.clock.wall_us())
        self._due = self.ports.clock.monotonic() + left
        self._tell_error(left)

    async def _keep(self, ladder: Ladder) -> None:
        """A state folder that cannot be written costs only what a restart would know."""
        self.ladder = ladder
        path, fields = self._note, ladder.as_fields()
        with suppress(BackstayError):
            await self.ports.offload.run(lambda: self.state.note(path, fields))

    @property
    def _note(self) -> str:
        return f"machines/{self.name}/ladder"

    def _tell(self, state: str, **more: Any) -> None:
        self.say({"machine": self.name, "state": state, **more})


def _stage(found: StageStatistics) -> dict[str, Any]:
    """As the supervisor shows it: to the millisecond."""
    return {
        "name": found.name,
        "workers": found.workers,
        "busy_seconds": round(found.busy, 3),
        "wait_in_seconds": round(found.wait_in, 3),
        "wait_out_seconds": round(found.wait_out, 3),
    }


def _failure_of(raised: BaseException) -> BackstayError | None:
    """None: it is a defect, or cancelled."""
    return next((leaf for leaf in leaves(raised) if isinstance(leaf, BackstayError)), None)
