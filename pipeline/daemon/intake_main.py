"""The intake process: captures all live machines of a configuration until it is told to stop.

Run by the parent as ``python -m pipeline.daemon.intake_main CONFIG [MACHINE/DISK...]``, in a
session of its own: it goes on serving its disks when the parent ends. The disks named are those
that the operator vouches for. One line of JSON on its standard output says that it serves, or why
it cannot.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio

from pipeline import logs
from pipeline.config import load
from pipeline.config.model import Config
from pipeline.config.model import Machine as MachineConfig
from pipeline.daemon import lock
from pipeline.daemon.link_server import LinkServer
from pipeline.daemon.permits import Permits
from pipeline.daemon.points import Kind as PointKind
from pipeline.daemon.points import Points
from pipeline.hooks import disk_hooks, hooks_held, machine_hooks
from pipeline.intake import IntakeDisk, MachineIntake, journal_limit
from pipeline.notice import source_notices
from pipeline.state import StateFolder
from stages import durable
from stages.capture.activity.witness import within
from stages.capture.group.group import Limits
from stages.capture.live.scrub import MISMATCH, Mismatch
from stages.errors import (
    BackstayError,
    IllegalOperation,
    NotFound,
    StateError,
    UsageError,
    leaves,
)
from stages.joint import Joint
from stages.ports import Machine
from stages.stage import crew
from stages.stream import MarkedPoint
from stages.system import this_machine

SOCKET = "intake.sock"
LOCK = "intake.lock"
_THREADS = 8
_AT_ONCE = 32  # machines that are opened or started
_LOOK_SECONDS = 30.0  # between two looks whether disks have grown
_CHANGE_SECONDS = 60.0  # that a stop waits for a change of disks that has begun
_MAX_LABEL = 200  # characters
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def main() -> int:
    """The process."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # its memory is what guests write
    try:
        config = load(sys.argv[1])
        logs.configure(config.daemon.log.format, config.daemon.log.level)
        trio.run(_serve, this_machine(_THREADS), config, frozenset(sys.argv[2:]))
    except (BackstayError, OSError, BaseExceptionGroup) as raised:
        failed = leaves(raised)[0]
        if not isinstance(failed, BackstayError | OSError):
            raise
        _say(_failure(failed))
        return failed.exit_code if isinstance(failed, BackstayError) else 1
    return 0


def disks_of(name: str, machine: MachineConfig, vouched: Collection[str] = ()) -> list[IntakeDisk]:
    """A machine's disks as intake takes them."""
    return [
        IntakeDisk(disk_name, disk.path, disk.listen or "", f"{name}/{disk_name}" in vouched)
        for disk_name, disk in machine.disks.items()
    ]


class _Process:
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

        limit = trio.Semaphore(_AT_ONCE)
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
            self._named(arguments, command).arrange(rest=rest, held=held)
            return {}
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
            intake.group.set_scrub(_scrub_seconds(config, name))
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
        """Machines that are new, all or none."""
        said: list[str] = []
        for refused in (await _failed_over(self._ports, config, self._state, news)).values():
            raise refused
        try:
            for name in news:
                intake = await _open(self._ports, config, self._state, name)
                await self.start(intake)
                said += [f"{name}/{disk}: {uri}" for disk, uri in intake.status().disks.items()]
        except BaseException:
            for name in news:
                await self._drop(name)
            raise
        return said

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
        if name not in self.intakes:
            raise NotFound("is not captured live", operation=operation, subject=name)
        return self.intakes[name]

    async def _mark(self, arguments: dict[str, Any]) -> MarkedPoint:
        name = self._named(arguments, "mark").name
        label = str(arguments.get("label", ""))
        if len(label) > _MAX_LABEL:
            raise UsageError(f"a label has at most {_MAX_LABEL} characters", operation="mark")
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


async def _serve(ports: Machine, config: Config, vouched: frozenset[str]) -> None:
    state = StateFolder.open(ports, config.daemon.state, lock=False)
    durable.make_dirs(ports.files, state.path)
    with lock.held(ports.files, f"{state.path}/{LOCK}", "intake"):
        live = [name for name, machine in config.machines.items() if machine.live]
        closed = await _failed_over(ports, config, state, live)
        if closed and len(closed) == len(live):
            raise closed[live[0]]
        names = [name for name in live if name not in closed]
        opened = await _open_all(ports, config, state, names, vouched)
        process = _Process(ports, config, state)
        process.joints.update({intake.name: intake.joint for intake in opened})
        link = LinkServer(f"{state.path}/{SOCKET}", process.joints, process.control)
        async with trio.open_nursery() as serving:
            await serving.start(link.run)
            serving.start_soon(_hear_signals, process)
            async with trio.open_nursery() as process.running:
                await process.start_all(opened)
                uris = {name: one.status().disks for name, one in process.intakes.items()}
                compared = {name: list(one.compared) for name, one in process.intakes.items()}
                stays = {name: _failure(error) for name, error in closed.items()}
                _say({"serves": uris, "compared": compared, "closed": stays})
                _close_output()
                serving.start_soon(process.watch_sizes)
                points = Points(
                    ports,
                    state,
                    lambda: process.config,
                    lambda: {} if process.stopping.is_set() else process.intakes,
                    process.make_point,
                )
                serving.start_soon(points.run)
                await process.stopping.wait()
            process.stopped.set()
            await process.ending.wait()  # delivery may still be reading what is durable
            serving.cancel_scope.cancel()


async def _failed_over(
    ports: Machine, config: Config, state: StateFolder, names: Collection[str]
) -> dict[str, BackstayError]:
    """The machines whose listeners stay closed, because production is elsewhere (R14)."""
    found: dict[str, BackstayError] = {}
    for name, looked in (await source_notices(ports, config, state, names)).items():
        if looked.notice is not None:
            found[name] = looked.notice.error("open listener", name)
        elif looked.trouble:
            said = f"{name}: not known whether it was failed over, going on: {looked.trouble}"
            print(said, file=sys.stderr, flush=True)  # noqa: T201
    return found


async def _open_all(
    ports: Machine,
    config: Config,
    state: StateFolder,
    names: Sequence[str],
    vouched: frozenset[str],
) -> list[MachineIntake]:
    """These machines, in their order; each waits for the disk of the state folder."""
    opened: dict[str, MachineIntake] = {}

    async def open_one(name: str) -> None:
        async with limit:
            opened[name] = await _open(ports, config, state, name, vouched)

    limit = trio.Semaphore(_AT_ONCE)
    async with crew() as nursery:
        for name in names:
            nursery.start_soon(open_one, name)
    return [opened[name] for name in names]


async def _open(
    ports: Machine,
    config: Config,
    state: StateFolder,
    name: str,
    vouched: Collection[str] = (),
) -> MachineIntake:
    machine = config.machine(name)
    folder, disks = state.intake_folder(name), disks_of(name, machine, vouched)
    await trio.to_thread.run_sync(durable.make_dirs, ports.files, folder)
    tuned = config.pipeline_of(machine).cache
    limit = tuned.journal_limit
    limits = Limits(
        journal_limit(ports, folder, disks) if limit == "auto" else int(limit),
        throttle=tuned.when_full == "throttle",
        scrub=_scrub_seconds(config, name),
    )
    intake = await MachineIntake.open(
        this_machine(_THREADS),  # threads of its own: those of others may hang with their disks
        folder,
        name,
        disks,
        limits,
        witnesses=[within(durable.parent(config.source), name)],
    )
    intake.group.scrub.on_mismatch = partial(_mismatched, name)
    return intake


def _mismatched(name: str, found: Mismatch) -> None:
    """Loudly: it is damage, or somebody writes past the splitter."""
    logs.error(
        MISMATCH,
        f"{name}/{found}: points since an unknown time are wrong there; it is being corrected",
        machine=name,
        disk=found.name,
        first_block=found.blocks[0],
        blocks=len(found.blocks),
    )


def _scrub_seconds(config: Config, name: str) -> float:
    days = config.policy_of(config.machine(name)).scrub_days
    return 0.0 if days == "off" else float(days) * 86400


async def _hear_signals(process: _Process) -> None:
    """SIGTERM: stop cleanly, and end."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            await process.stop()
            process.ending.set()


def _tuning(config: Config, name: str) -> tuple[object, str]:
    cache = config.pipeline_of(config.machine(name)).cache
    return cache.journal_limit, cache.when_full


def _point(point: MarkedPoint) -> dict[str, Any]:
    return {"seq": point.seq, "stamp": point.stamp, "grade": point.grade, "reason": point.reason}


def _failure(error: BackstayError | OSError) -> dict[str, Any]:
    if isinstance(error, OSError):
        return {"error": "StateError", "message": str(error), "hint": "", "where": ["intake", ""]}
    return {
        "error": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "where": [error.operation, error.subject],
    }


def _say(fields: dict[str, Any]) -> None:
    print(json.dumps(fields), flush=True)  # noqa: T201 - what the parent waits for


def _close_output() -> None:
    """The parent reads to the end of the line, and may be gone later."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
