"""The recovery points that policies ask for: marks every so often, some with applications frozen.

It runs in intake, so points go on whatever becomes of the other processes. What has to wait for the
vault is in the stream already: it becomes a point of its time when it is shipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import trio

from pipeline import logs
from pipeline.config.model import Config, Policy
from pipeline.policy.cadence import Cadence
from pipeline.state import StateFolder
from stages.errors import BackstayError
from stages.ports import Machine
from stages.stream import MarkedPoint

Kind = Literal["point", "app"]
KINDS: tuple[Kind, ...] = ("point", "app")
LABELS: Mapping[Kind, str] = {"point": "scheduled", "app": "scheduled, applications"}
LOOK_SECONDS = 1.0  # between two looks what is due
SHIP_SECONDS = 60.0  # to wait for a point to be in the vault, before it is left to itself


class Marked(Protocol):
    """A machine that is captured."""

    def ready(self) -> bool:
        """No gap is open: a mark would become a point."""


Make = Callable[[str, str, Kind], Awaitable[MarkedPoint]]
"""Makes a mark of a machine, with a label. With "app" its applications are frozen around it."""


@dataclass
class _Row:
    cadence: Cadence
    busy: bool = False
    told: str = ""  # why the last one could not be made


class Points:
    """``config`` and ``machines`` are asked for at every look, so a reload is followed at once."""

    def __init__(
        self,
        ports: Machine,
        state: StateFolder,
        config: Callable[[], Config],
        machines: Callable[[], Mapping[str, Marked]],
        make: Make,
    ):
        self._clock = ports.clock
        self._offload = ports.offload
        self._state = state
        self._config = config
        self._machines = machines
        self._make = make
        self._rows: dict[tuple[str, Kind], _Row] = {}
        self._last: dict[str, dict[str, int]] = {}  # wall time in us by kind, by machine

    async def run(self) -> None:
        """For ever; its owner cancels it. Freezes under way are thawed then."""
        async with trio.open_nursery() as nursery:
            while True:
                for name, marked in list(self._machines().items()):
                    await self._look(name, marked, nursery)
                self._forget()
                await self._clock.sleep(LOOK_SECONDS)

    async def _look(self, name: str, marked: Marked, nursery: trio.Nursery) -> None:
        config = self._config()
        if name not in config.machines:
            return
        policy = config.policy_of(config.machines[name])
        for kind in KINDS:
            every = _every(policy, kind)
            if every is None:
                self._rows.pop((name, kind), None)
                continue
            row = await self._row(name, kind, every)
            now = self._clock.monotonic()
            row.cadence = row.cadence.changed(every, now)
            if not row.busy and marked.ready() and not row.cadence.wait(now):
                row.busy = True
                nursery.start_soon(self._one, name, kind, row)

    async def _row(self, name: str, kind: Kind, every: float) -> _Row:
        if (name, kind) not in self._rows:
            if name not in self._last:
                self._last[name] = await self._offload.run(partial(self._noted, name))
            now, wall = self._clock.monotonic(), self._clock.wall_us()
            begun = Cadence.begin(every, now, wall, self._last[name].get(kind))
            self._rows[name, kind] = _Row(begun)
        return self._rows[name, kind]

    async def _one(self, name: str, kind: Kind, row: _Row) -> None:
        reason = ""
        point: MarkedPoint | None = None
        with logs.about(machine=name):
            try:
                with trio.move_on_after(SHIP_SECONDS + self._frozen_at_most(name, kind)):
                    point = await self._make(name, LABELS[kind], kind)
            except BackstayError as error:
                reason = f"{error.message}; {error.hint}" if error.hint else error.message
            now = self._clock.monotonic()
            if point is not None and not point.seq:
                reason = point.reason or "a gap opened"
            if reason:
                row.cadence = row.cadence.failed(now)
                if reason != row.told:
                    logs.warning("point.lost", f"{name}: no {_what(kind)}: {reason}", kind=kind)
            else:
                row.cadence = row.cadence.made(now)
                await self._made(name, kind, point)
            row.told, row.busy = reason, False

    async def _made(self, name: str, kind: Kind, point: MarkedPoint | None) -> None:
        self._last.setdefault(name, {})[kind] = self._clock.wall_us()
        seq = None if point is None else point.seq
        logs.event("point.made", f"{name}: {_what(kind)}", level="debug", kind=kind, seq=seq)
        try:
            await self._offload.run(partial(self._note, name, dict(self._last[name])))
        except BackstayError as error:  # the next start makes one too early
            logs.warning("point.note", f"{name}: {error}")

    def _frozen_at_most(self, name: str, kind: Kind) -> float:
        config = self._config()
        machine = config.machines.get(name)
        if kind == "point" or machine is None:
            return 0.0
        app = config.policy_of(machine).app_consistent
        hooks = [disk.snapshot for disk in machine.disks.values()]
        seconds = [float(hook.timeout) for hook in (app, *hooks) if hook is not None]
        return 2 * sum(seconds)

    def _forget(self) -> None:
        there = self._machines()
        for name, kind in [row for row in self._rows if row[0] not in there]:
            del self._rows[name, kind]
        for name in [name for name in self._last if name not in there]:
            del self._last[name]

    def _noted(self, name: str) -> dict[str, int]:
        try:
            found = self._state.noted(_path(name)) or {}
        except BackstayError:
            return {}
        return {kind: found[kind] for kind in KINDS if type(found.get(kind)) is int}

    def _note(self, name: str, fields: dict[str, int]) -> None:
        self._state.note(_path(name), dict(fields))


def _every(policy: Policy, kind: Kind) -> float | None:
    section = policy.points if kind == "point" else policy.app_consistent
    return None if section is None else float(section.every)


def _what(kind: Kind) -> str:
    return "recovery point" if kind == "point" else "application-consistent point"


def _path(name: str) -> str:
    return f"intake/{name}/points"
