"""The supervisor: a process over intake and delivery, with a nursery for each protected machine.

Intake is a session of its own and survives it; delivery ends with it. What ends by itself is
started again, after 0.1 s and twice as long each time up to 10 s, from the beginning once it has
stayed up for a minute. SIGTERM and SIGINT stop both in order, a second one does not wait for
delivery; SIGHUP reads the configuration again. Killed, it comes back to the states that it has
saved: see ``Protected``.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from pipeline.config import load
from pipeline.config.model import Config
from pipeline.control.model import Operation, State
from pipeline.credential import read_secret
from pipeline.daemon.child import DeliveryChild, Tell
from pipeline.daemon.link_client import IntakeGone
from pipeline.lifecycle.events import Happening
from pipeline.lifecycle.rules import Situation, delivers, is_legal
from pipeline.records.model import NewAudit
from pipeline.state import StateFolder
from pipeline.supervisor.dbrecords import DatabaseRecords
from pipeline.supervisor.facts import Look
from pipeline.supervisor.following import follow_vaults
from pipeline.supervisor.handover import add_handover
from pipeline.supervisor.intake import IntakeKeeper
from pipeline.supervisor.jobs import built_in
from pipeline.supervisor.machine import Protected
from pipeline.supervisor.notify import Notifier, fed
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.records import MachineRecord
from pipeline.supervisor.traffic import VaultTraffic
from pipeline.supervisor.wellness import Wellness
from pipeline.supervisor.work import Carriers
from stages.errors import BackstayError, ConfigError, IllegalOperation
from stages.ports import Machine
from stages.stage import Signal, crew

DATABASE = "control.db"  # in the state folder, unless the configuration names another
_STOP_SECONDS = 120.0  # for guests to be flushed; intake has bounds of its own below this
_END_SECONDS = 30.0
_AGAIN_SECONDS = 5.0  # before a machine's task that has broken is begun anew
_STUCK_SECONDS = 60.0  # without a look at intake: the watchdog is not fed any more


Follow = Callable[[Parts, Mapping[str, Protected]], Awaitable[None]]


class Supervisor:
    """``tell`` hears one line for each event; ``drain`` seconds bound the end. ``vouched``: disks
    (MACHINE/DISK) that nobody has written to since the last stop, says the operator. ``follow``
    moves machines on as failovers elsewhere say."""

    def __init__(
        self,
        ports: Machine,
        config: Config,
        state: StateFolder,
        tell: Tell,
        drain: float,
        vouched: Sequence[str] = (),
        *,
        carriers: Carriers | None = None,
        follow: Follow = follow_vaults,
        notifier: Notifier | None = None,
    ):
        self.machines: dict[str, Protected] = {}
        self.points: dict[str, Mapping[str, Any]] = {}  # the newest consistent one of each
        self.started_us = ports.clock.wall_us()
        self.drilled_us: int | None = None  # when the key was last drilled
        self.traffic = VaultTraffic()
        self._ready = trio.Event()
        self._ports = ports
        self._state = state
        self._tell = tell
        self._drain = drain
        self._follow = follow
        self._notifier = notifier or Notifier()
        self._records = DatabaseRecords(ports, lambda: database_of(config, ports))
        self.intake = IntakeKeeper(ports, config, state, tell, self._looked, vouched)
        self.delivery = DeliveryChild(ports, config, state, tell, self._heard, self._heard_of_vault)
        self.parts = Parts(
            ports=ports,
            config=config,
            state=state,
            records=self._records,
            carriers=carriers or add_handover(built_in()),
            shipping=self.delivery,
            capturing=self.intake,
            tell=tell,
        )
        self.wellness = Wellness(
            self.parts, self.machines, self.points, lambda: self.drilled_us is not None
        )
        self._reloads = Signal()
        self._reloading = trio.Lock()
        self._stopping = trio.Event()
        self._hurried = trio.CancelScope()
        self._looked_at = ports.clock.monotonic()
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery

    @property
    def config(self) -> Config:
        """As it is now."""
        return self.parts.config

    @property
    def ready(self) -> bool:
        """Intake serves, and all machines are in the states that were saved."""
        return self._ready.is_set()

    async def audited(self, entry: NewAudit) -> int:
        """An entry of the audit that the API makes."""
        return await self._records.audited(entry)

    async def until_ready(self) -> None:
        """Return when it is."""
        await self._ready.wait()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises what keeps intake from starting."""
        async with crew() as self._nursery:
            nursery = self._nursery
            await nursery.start(self._signals)
            await nursery.start(self._records.run)
            known = {record.name: record for record in await self._records.load()}
            await self.intake.begin()
            drill = await self._noted("drill")
            self.drilled_us = None if drill is None else int(drill["at"])
            for name in self.config.machines:
                await self._add(name, known.get(name))
            nursery.start_soon(self.intake.keep)
            nursery.start_soon(self.delivery.run)
            nursery.start_soon(self._keep_config)
            self.wellness.alerts.configure(self.config.daemon)
            nursery.start_soon(self.wellness.alerts.run)
            nursery.start_soon(self.wellness.run)
            nursery.start_soon(self._follow, self.parts, self.machines)
            nursery.start_soon(fed, self._notifier, self._ports.clock, self._is_well)
            self._ready.set()
            self._notifier.ready(f"{len(self.machines)} machines")
            await self._stopping.wait()
            await self._stop()
            await self.wellness.drain()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """As SIGTERM does."""
        self._stopping.set()

    async def _signals(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reloads.set()
                elif self._stopping.is_set():
                    self._hurried.cancel()
                else:
                    self._stopping.set()

    # machines

    async def _add(self, name: str, record: MachineRecord | None) -> None:
        """A machine of the configuration. One that has points already was protected by a version
        that kept no states: it goes on."""
        point = await self._noted(f"machines/{name}/last-point")
        if point is not None:
            self.points[name] = point
        if record is None:
            record = MachineRecord(name)
            if point is not None:
                record = MachineRecord(name, Situation(State.REPLICATING), whole=True)
        await self.delivery.pause(name, paused=not delivers(record.situation))
        one = self.machines[name] = Protected(self.parts, record)
        scope = self._scopes[name] = trio.CancelScope()
        self._nursery.start_soon(self._keep_machine, one, scope)

    async def _keep_machine(self, one: Protected, scope: trio.CancelScope) -> None:
        """Nothing that goes wrong with one machine touches another."""
        with scope:
            while True:
                try:
                    async with trio.open_nursery() as nursery:
                        await nursery.start(one.run)
                        await self._declare(one)
                except Exception as raised:  # noqa: BLE001 - the supervisor goes on
                    self._tell(f"{one.name}: {''.join(traceback.format_exception(raised))}")
                await self._ports.clock.sleep(_AGAIN_SECONDS)
                one = self.machines[one.name] = Protected(self.parts, one.record)

    async def _declare(self, one: Protected) -> None:
        """The configuration says that it is protected."""
        if one.record.situation.state is State.DISABLED and one.record.wanted:
            try:
                await one.operate(Operation.PROTECT, {"declared": True}, "config")
            except BackstayError as error:
                self._tell(f"{one.name}: {error}")

    async def _noted(self, path: str) -> dict[str, Any] | None:
        try:
            return await self._ports.offload.run(lambda: self._state.noted(path))
        except BackstayError:
            return None

    def _looked(self, at: float, rows: Mapping[str, Any] | None) -> None:
        self._looked_at = at
        for name, one in self.machines.items():
            one.looked(Look(at, None if rows is None else rows.get(name)))

    def _heard(self, name: str, said: dict[str, Any]) -> None:
        if said.get("consistent") and "seq" in said:
            self.points[name] = said
        if name in self.machines:
            self.machines[name].heard(said)

    def _heard_of_vault(self, life: int, vault: str, fields: dict[str, Any]) -> None:
        self.traffic.heard(life, vault, fields, self._ports.clock.monotonic())

    def _is_well(self) -> bool:
        return self._ports.clock.monotonic() - self._looked_at < _STUCK_SECONDS

    # another configuration

    async def _keep_config(self) -> None:
        """Beside everything else: a disk that goes has clients to be waited for."""
        while True:
            await self._reloads.wait()
            self._notifier.reloading(self._ports.clock)
            try:
                said, later = await self.reload()
            except BackstayError as error:
                text = error.message if isinstance(error, ConfigError) else str(error)
                self._tell(f"reload: nothing is changed: {text}")
                if error.hint:
                    self._tell(f"  hint: {error.hint}")
            else:
                for line in (*said, "reload: done", *later):
                    self._tell(line)
            self._notifier.ready()

    async def reload(self) -> tuple[list[str], list[str]]:
        """Read the configuration again; for people what changed, and what changes only when intake
        is started again. Raises, and changes nothing, if it is wrong or intake cannot have it.
        Credentials are read again as well: what had failed for good is tried once."""
        async with self._reloading:
            config = await trio.to_thread.run_sync(load, self.config.source)
            if config.daemon.state != self.config.daemon.state:
                raise IllegalOperation("daemon.state is another", operation="reload")
            try:
                said, later = await self.intake.reload()
            except IntakeGone as gone:
                said, later = [f"reload: {gone}: it is what it will be started with"], []
            said += await self._take(config)
            await self.delivery.renew(config)
            for one in self.machines.values():
                if is_legal(one.record.situation, Happening.CREDENTIALS_RELOADED):
                    await one.happen(Happening.CREDENTIALS_RELOADED)
            await self.parts.event("config", "", "; ".join((*said, *later)) or "read again")
            return said, later

    async def _take(self, config: Config) -> list[str]:
        said = [
            f"{name}: not in the configuration any more"
            for name in self.machines
            if name not in config.machines
        ]
        for name in [name for name in self.machines if name not in config.machines]:
            self._scopes.pop(name).cancel()
            del self.machines[name]
        self.parts.config = self.intake.config = config
        self.wellness.alerts.configure(config.daemon)
        known = {record.name: record for record in self._records.machines()}
        for name in config.machines:
            if name in self.machines:
                await self._declare(self.machines[name])
            else:
                said.append(f"{name}: new")
                await self._add(name, known.get(name))
        return said

    # the end

    async def _stop(self) -> None:
        """Guests first: everything flushed; then ship what is durable, for a while."""
        self._notifier.stopping()
        self._notifier.extend(_STOP_SECONDS + self._drain + 2 * _END_SECONDS)
        self._tell("stopping: no more writes are taken, what was taken is shipped")
        self.intake.stopping()
        try:
            with trio.move_on_after(_STOP_SECONDS):
                await self.intake.ask("stop")
        except IntakeGone:
            self._tell("intake: gone already")
        shipped = False
        with self._hurried, trio.move_on_after(self._drain):
            shipped = await self.delivery.drain()
        if not shipped:
            self._tell("not all was shipped: the journal keeps the rest for the next start")
        with trio.move_on_after(_END_SECONDS):
            await self.intake.end()
        self._tell("stopped")


def database_of(config: Config, ports: Machine) -> str:
    """Where the control database is. Blocks. ``ConfigError`` if the secret cannot be read."""
    if config.daemon.database is None:
        return f"{config.daemon.state}/{DATABASE}"
    return read_secret(config.daemon.database, ports.files)
