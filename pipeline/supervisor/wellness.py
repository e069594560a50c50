"""Health of machines and daemon over time, and alerts when it changes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.alerts.dispatch import Alerts
from pipeline.control.model import Reason, State
from pipeline.health.calm import Calm, Change
from pipeline.health.facts import Thresholds
from pipeline.health.host import HostSampler
from pipeline.health.judge import judge_daemon
from pipeline.health.watch import MachineWatch, Seen, thresholds_of
from pipeline.lifecycle.rules import delivers
from pipeline.supervisor.machine import Protected
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.views import ladder_view, shown_rpo
from stages.errors import BackstayError

CHECK_SECONDS = 5.0
_DRAIN_SECONDS = 5.0
_STARTING = (State.CHECKING, State.READY, State.INITIAL_REPLICATION, State.FINALIZING)


class Wellness:
    """Checks every few seconds. ``machines`` and ``points`` are the supervisor's."""

    def __init__(
        self,
        parts: Parts,
        machines: Mapping[str, Protected],
        points: Mapping[str, Mapping[str, Any]],
        drilled: Callable[[], bool],
    ):
        self.alerts = Alerts(parts.ports, socket.gethostname())
        self._parts = parts
        self._machines = machines
        self._points = points
        self._drilled = drilled
        self._watches: dict[str, MachineWatch] = {}
        self._daemon = Calm()
        self._host = HostSampler(parts.state.path)

    def of(self, machine: str) -> tuple[Reason, ...]:
        """What is not well with a machine, by policy and thresholds."""
        watch = self._watches.get(machine)
        return () if watch is None else watch.calm.reasons

    def of_daemon(self) -> tuple[Reason, ...]:
        """What is not well with the daemon's host."""
        return self._daemon.reasons

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._parts.ports.clock.sleep(CHECK_SECONDS)
            await self._check()

    async def _check(self) -> None:
        for name in [name for name in self._watches if name not in self._machines]:
            del self._watches[name]
        for name, one in list(self._machines.items()):
            watch = self._watches.setdefault(name, MachineWatch())
            config = self._parts.config
            limits = thresholds_of(config.policy_of(config.machine(name)))
            change = watch.check(self._seen(name, one), limits)
            if change is not None:
                await self._changed(name, change)
        facts = await self._parts.ports.offload.run(self._host.sample)
        change = self._daemon.check(judge_daemon(facts, Thresholds()))
        if change is not None:
            await self._changed("", change)

    def _seen(self, name: str, one: Protected) -> Seen:
        ports, situation = self._parts.ports, one.record.situation
        point, now = self._points.get(name), ports.clock.monotonic()
        wall = ports.clock.wall_us()
        age = None if point is None else max(0.0, (wall - int(point["stamp"])) / 1e6)
        return Seen(
            now=now,
            live=one.look.row,
            rpo=shown_rpo(one.reports.rpo.seconds(now), one.look, point, wall),
            replicating=delivers(situation),
            initial=situation.state in _STARTING,
            consistent_age=age,
            ladder=ladder_view(one.said),
            key_drilled=self._drilled(),
        )

    async def _changed(self, name: str, change: Change) -> None:
        self.alerts.tell(name, change)
        why = "; ".join(reason.message for reason in change.reasons) or "all is well"
        fields = {
            "before": change.before.value,
            "after": change.after.value,
            "reasons": [reason.code for reason in change.reasons],
        }
        try:
            await self._parts.event("health", name, f"{change.after.value}: {why}", fields)
        except BackstayError as error:
            self._parts.tell(f"health: {error}")

    async def drain(self) -> None:
        """Wait a little for alerts that are on their way."""
        await self.alerts.drain(_DRAIN_SECONDS)
