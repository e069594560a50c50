"""The machines that intake captures, and the commands they take over its control socket."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import trio

from pipeline import logs
from pipeline.config import load
from pipeline.config.model import Config
from pipeline.daemon.opening import (
    AT_ONCE,
    closed_note,
    disks_of,
    failed_over,
    open_machine,
    scrub_seconds,
)
from pipeline.daemon.permits import Permits
from pipeline.daemon.points import Kind as PointKind
from pipeline.hooks import disk_hooks, hooks_held, machine_hooks
from pipeline.intake import MachineIntake
from pipeline.state import StateFolder
from stages.errors import (
    BackstayError,
    IllegalOperation,
    NotFound,
    StateError,
    StateLocked,
    UsageError,
    leaves,
)
from stages.joint import Joint
from stages.ports import Machine
from stages.stage import crew
from stages.stream import MarkedPoint

_LOOK_SECONDS = 30.0  # between two looks whether disks have grown
_CHANGE_SECONDS = 60.0  # that a stop waits for a change of disks that has begun
_MAX_LABEL = 200  # characters


class Capturing:
    """The machines, and the commands they take."""

    def __init__(self, ports: Machine, config: Config, state: StateFolder):
        self.config = config
        self.intakes: dict[str, MachineIntake] = {}
        self.joints: dict[str, Joint] = {}  # of those that run
        self.permits: dict[str, Permits] = {}
        self.running: trio.Nursery
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.ending = trio.Event()
        self._ports = ports
        self._state = state
        self._changing = trio.Lock()  # one change of disks at a time

    async def start(self, intake: MachineIntake) -> None:
        """Have it run. Raises what keeps it from serving."""
        permits = Permits(self._ports, self._state, intake.name, lambda: self.config)
        intake.group.comparing.permit = self.permits[intake.name] = permits
        try:
            await self.running.start(intake.run)
        except BaseExceptionGroup as group:
            known = [leaf for leaf in leaves(group) if isinstance(leaf, BackstayError)]
            if not known:
                raise
            raise known[0] from None
        self.intakes[intake.name] = intake
        self.joints[intake.name] = intake.joint

    async def start_all(self, intakes: Sequence[MachineIntake]) -> None:
        """Have them run, in their order as far as others can see it."""

        async def start_one(intake: MachineIntake) -> None:
            async with limit:
                await self.start(intake)

        limit = trio.Semaphore(AT_ONCE)
        async with crew() as nursery:
            for intake in intakes:
                nursery.start_soon(start_one, intake)
        self.intakes = {intake.name: intake for intake in intakes}

    async def control(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """See ``Control``."""
        if command == "status":
            return self._status()
        if command == "mark":
            return _point(await self._mark(arguments))
        if command == "arrange":
            rest, held = str(arguments.get("rest", "")), bool(arguments.get("held", False))
            one = self._named(arguments, command)
            one.arrange(rest=rest, held=held)
            await self._close(one, str(arguments.get("closed", "")), hang_up=True)
            return {}
        if command == "close":
            one = self._named(arguments, command)
            await self._close(one, str(arguments["reason"]), hang_up=False)
            return {}
        if command == "open":
            name = str(arguments.get("machine"))
            said = await self._open(name)
            return {"said": said, "served": name in self.intakes}
        if command == "release":
            await self._release(str(arguments.get("machine")), str(arguments["reason"]))
            return {}
        if command == "mark-last":
            return _point(await self._named(arguments, command).mark_last(_label(arguments)))
        if command == "resync":
            await self._named(arguments, command).resync("ordered")
            return {}
        if command == "scan-now":
            return self._scan_now(str(arguments.get("machine")))
        if command == "reload":
            return await self._reload(str(arguments.get("config")))
        if command == "stop":
            await self.stop()
            await self.stopped.wait()
            return {name: list(one.joint.durable) for name, one in self.intakes.items()}
        if command == "end":
            await self.stop()
            self.ending.set()
            return {}
        raise NotFound(f"no command {command!r}", operation="intake")

    async def stop(self) -> None:
        """Take no more writes; ``stopped`` is set when all is flushed."""
        self.stopping.set()
        with trio.move_on_after(_CHANGE_SECONDS):
            async with self._changing:  # one that has begun; there will be no other
                pass
        for intake in self.intakes.values():
            intake.stop()

    async def watch_sizes(self) -> None:
        """Take disks that have grown as they are."""
        while True:
            await self._ports.clock.sleep(_LOOK_SECONDS)
            async with self._changing:
                if self.stopping.is_set():
                    return
                for name, intake in self.intakes.items():
                    try:
                        said = await intake.look()
                    except BackstayError as error:
                        said = [str(error)]
                    for line in said:
                        logs.event("disk.size", f"{name}/{line}", machine=name)

    async def _close(self, intake: MachineIntake, reason: str, *, hang_up: bool) -> None:
        """No client may come while there is a reason. An intake that is started again knows it."""
        if reason == intake.closed:
            return
        if reason:
            await intake.close_listeners(reason, hang_up=hang_up)
        else:
            await intake.open_listeners()
        await trio.to_thread.run_sync(
            self._state.note, closed_note(intake.name), {"reason": reason}
        )

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "stopping": self.stopping.is_set(),
            "source": self.config.source,
            "machines": {name: one.status().as_fields() for name, one in self.intakes.items()},
        }

    async def _reload(self, path: str) -> dict[str, Any]:
        """Take over another configuration: its disks and hooks now, the journal's tuning when
        intake starts. What cannot be had changes nothing. Not cut short by who asked hanging up."""
        config = await trio.to_thread.run_sync(load, path)
        if not any(machine.live for machine in config.machines.values()):
            raise IllegalOperation(
                "no disk would be captured live any more",
                operation="reload",
                subject=path,
                hint="stop it with SIGTERM instead",
            )
        async with self._changing:
            if self.stopping.is_set():
                raise IllegalOperation("it is being stopped", operation="reload", subject=path)
            with trio.CancelScope(shield=True):
                try:
                    said = await self._take(config)
                except OSError as error:
                    reason = error.strerror or str(error)
                    raise StateError(reason, operation="reload", subject=path) from error
        later = self._take_tuning(config)
        logs.configure(config.daemon.log.format, config.daemon.log.level)
        for name, intake in self.intakes.items():
            intake.group.set_scrub(scrub_seconds(config, name))
        return {"later": later, "said": said}

    def _take_tuning(self, config: Config) -> list[str]:
        before, self.config = self.config, config
        return [
            name
            for name in self.intakes
            if name in before.machines and _tuning(config, name) != _tuning(before, name)
        ]

    async def _take(self, config: Config) -> list[str]:
        """First all that may be refused, then what changes."""
        live = {name: machine for name, machine in config.machines.items() if machine.live}
        news = [name for name in live if name not in self.intakes]
        async with AsyncExitStack() as held:
            ready = {}
            for name, machine in live.items():
                if name in self.intakes:
                    ready[name] = await self.intakes[name].prepare(disks_of(name, machine))
                    held.push_async_callback(ready[name].close)
            said = await self._start_all(config, news)
            for name, change in ready.items():
                said += [f"{name}/{line}" for line in await change.apply()]
        for name in [name for name in self.intakes if name not in live]:
            await self._drop(name)
            said.append(f"{name}: not captured any more; its journal keeps what was not shipped")
        return said

    async def _start_all(self, config: Config, news: Sequence[str]) -> list[str]:
        """Machines that are new, all or none; not those whose production is elsewhere."""
        closed = await failed_over(self._ports, config, self._state, news)
        said = [f"{name}: its listeners stay closed: {why}" for name, why in closed.items()]
        news = [name for name in news if name not in closed]
        try:
            for name in news:
                try:
                    intake = await open_machine(self._ports, config, self._state, name)
                except StateLocked as locked:
                    said.append(f"{name}: its listeners stay closed for now: {locked}")
                    continue
                await self.start(intake)
                said += [f"{name}/{disk}: {uri}" for disk, uri in intake.status().disks.items()]
        except BaseException:
            for name in news:
                await self._drop(name)
            raise
        return said

    async def _open(self, name: str) -> list[str]:
        """Capture a machine whose listeners stayed closed, if they may be open now."""
        async with self._changing:
            known = name in self.config.machines and self.config.machines[name].live
            if self.stopping.is_set() or not known or name in self.intakes:
                return []
            said: list[str] = []
            with trio.CancelScope(shield=True):
                said += await self._start_all(self.config, [name])
            return said

    async def _release(self, name: str, reason: str) -> None:
        """Let go of a machine whose production is elsewhere: its disks and its state are for others
        to write to. ``SourceBusy`` while it has clients."""
        async with self._changing:
            if self.stopping.is_set() or name not in self.intakes:
                return
            await self.intakes[name].close_listeners(reason)
            with trio.CancelScope(shield=True):
                await self._drop(name)

    async def _drop(self, name: str) -> None:
        """Stop serving a machine."""
        intake = self.intakes.pop(name, None)
        if intake is not None:
            intake.stop()
            await intake.ended.wait()
            del self.joints[name]
            self.permits.pop(name, None)

    def _scan_now(self, name: str) -> dict[str, Any]:
        """A scan that waits for its time goes at once."""
        if name not in self.permits:
            raise NotFound("is not captured live", operation="scan", subject=name)
        self.permits[name].force()
        return {"waits": self.intakes[name].group.comparing.waiting}

    def _named(self, arguments: dict[str, Any], operation: str) -> MachineIntake:
        name = str(arguments.get("machine"))
        if name in self.intakes:
            return self.intakes[name]
        if name in self.config.machines and self.config.machines[name].live:
            raise IllegalOperation(
                "its disks are not served here: it was failed over, or a command has it in hand",
                operation=operation,
                subject=name,
                hint="'backstay status' and 'backstay failover status' show where it is",
            )
        raise NotFound("is not captured live", operation=operation, subject=name)

    async def _mark(self, arguments: dict[str, Any]) -> MarkedPoint:
        name = self._named(arguments, "mark").name
        label = _label(arguments)
        if self.stopping.is_set():
            raise IllegalOperation("it is being stopped", operation="mark", subject=name)
        return await self.make_point(name, label, "app")

    async def make_point(self, name: str, label: str, kind: PointKind) -> MarkedPoint:
        """A mark of a machine; with "app" between the hooks of its policy and disks, if it has
        any. See ``Marks.make``."""
        if name not in self.intakes or name not in self.config.machines:
            raise NotFound("is not captured live", operation="mark", subject=name)
        intake, machine = self.intakes[name], self.config.machines[name]
        disks = tuple(machine.disks.items())
        policy = machine_hooks(name, self.config.policy_of(machine))
        hooks = [*policy, *disk_hooks(name, disks)]
        if kind == "point" or not hooks:
            return await intake.mark(label)
        # A policy's hooks hold the whole machine still; those of disks only theirs.
        all_still = bool(policy) or len(hooks) == len(disks)
        still = hooks_held(hooks)
        frozen = False

        async def freeze() -> None:
            nonlocal frozen
            await still.__aenter__()
            frozen = True

        async def thaw() -> bool:
            if not frozen:
                return False
            try:
                await still.__aexit__(None, None, None)
            except BackstayError:
                return False
            return all_still

        return await intake.mark(label, freeze, thaw)


def _label(arguments: Mapping[str, Any]) -> str:
    label = str(arguments.get("label", ""))
    if len(label) > _MAX_LABEL:
        raise UsageError(f"a label has at most {_MAX_LABEL} characters", operation="mark")
    return label


def _tuning(config: Config, name: str) -> tuple[object, str]:
    cache = config.pipeline_of(config.machine(name)).cache
    return cache.journal_limit, cache.when_full


def _point(point: MarkedPoint) -> dict[str, Any]:
    return {"seq": point.seq, "stamp": point.stamp, "grade": point.grade, "reason": point.reason}
