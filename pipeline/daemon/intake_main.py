"""The intake process: captures all live machines of a configuration until it is told to stop.

Run by the parent as ``python -m pipeline.daemon.intake_main CONFIG``, in a session of its own: it
goes on serving its disks when the parent ends. One line of JSON on its standard output says that it
serves, or why it cannot.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

import trio

from pipeline.config import load
from pipeline.config.model import Config
from pipeline.config.model import Machine as MachineConfig
from pipeline.daemon import lock
from pipeline.daemon.link_server import LinkServer
from pipeline.hooks import held_still
from pipeline.intake import IntakeDisk, MachineIntake, journal_limit
from pipeline.state import StateFolder
from stages import durable
from stages.capture.activity.witness import within
from stages.capture.group.group import Limits
from stages.errors import BackstayError, IllegalOperation, NotFound, UsageError, leaves
from stages.ports import Machine
from stages.stream import MarkedPoint
from stages.system import this_machine

SOCKET = "intake.sock"
LOCK = "intake.lock"
_THREADS = 8
_MAX_LABEL = 200  # characters
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def main() -> int:
    """The process."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # its memory is what guests write
    try:
        config = load(sys.argv[1])
        trio.run(_serve, this_machine(_THREADS), config)
    except (BackstayError, OSError, BaseExceptionGroup) as raised:
        failed = leaves(raised)[0]
        if not isinstance(failed, BackstayError | OSError):
            raise
        _say(_failure(failed))
        return failed.exit_code if isinstance(failed, BackstayError) else 1
    return 0


def disks_of(machine: MachineConfig) -> list[IntakeDisk]:
    """A machine's disks as intake takes them."""
    return [IntakeDisk(name, disk.path, disk.listen or "") for name, disk in machine.disks.items()]


def machines_of(config: Config) -> dict[str, list[list[str]]]:
    """What intake captures, to be compared: by machine, its disks."""
    return {
        name: [[disk.name, disk.path, disk.listen] for disk in disks_of(machine)]
        for name, machine in config.machines.items()
        if machine.live
    }


class _Process:
    """The machines, and the commands they take."""

    def __init__(self, config: Config, intakes: dict[str, MachineIntake]):
        self.config = config
        self.intakes = intakes
        self.stopping = False
        self.stopped = trio.Event()
        self.ending = trio.Event()

    async def control(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """See ``Control``."""
        if command == "status":
            return self._status()
        if command == "mark":
            return _point(await self._mark(arguments))
        if command == "reload":
            return await self._reload(str(arguments.get("config")))
        if command == "stop":
            self.stop()
            await self.stopped.wait()
            return {name: list(one.joint.durable) for name, one in self.intakes.items()}
        if command == "end":
            self.stop()
            self.ending.set()
            return {}
        raise NotFound(f"no command {command!r}", operation="intake")

    def stop(self) -> None:
        """Take no more writes; ``stopped`` is set when all is flushed."""
        self.stopping = True
        for intake in self.intakes.values():
            intake.stop()

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "stopping": self.stopping,
            "config": machines_of(self.config),
            "machines": {name: one.status().as_fields() for name, one in self.intakes.items()},
        }

    async def _reload(self, path: str) -> dict[str, Any]:
        """Take over what does not touch disks: hooks now, the journal's tuning when it starts."""
        config = await trio.to_thread.run_sync(load, path)
        if machines_of(config) != machines_of(self.config):
            raise IllegalOperation(
                "the disks that are captured live are others than those being served",
                operation="reload",
                subject=path,
                hint="stop it with SIGTERM and start it again: guests are disconnected meanwhile",
            )
        later = [
            name for name in self.intakes if _tuning(config, name) != _tuning(self.config, name)
        ]
        self.config = config
        return {"later": later}

    async def _mark(self, arguments: dict[str, Any]) -> MarkedPoint:
        name = str(arguments.get("machine"))
        if name not in self.intakes:
            raise NotFound("is not captured live", operation="mark", subject=name)
        intake, machine = self.intakes[name], self.config.machines[name]
        label = str(arguments.get("label", ""))
        if len(label) > _MAX_LABEL:
            raise UsageError(f"a label has at most {_MAX_LABEL} characters", operation="mark")
        if self.stopping:
            raise IllegalOperation("it is being stopped", operation="mark", subject=name)
        if not any(disk.snapshot for disk in machine.disks.values()):
            return await intake.mark(label)
        still = held_still(name, tuple(machine.disks.items()))
        held: list[bool] = []

        async def freeze() -> None:
            held.append(await still.__aenter__())

        async def thaw() -> bool:
            if not held:
                return False
            try:
                await still.__aexit__(None, None, None)
            except BackstayError:
                return False
            return held[0]

        return await intake.mark(label, freeze, thaw)


async def _serve(ports: Machine, config: Config) -> None:
    state = StateFolder.open(ports, config.daemon.state, lock=False)
    durable.make_dirs(ports.files, state.path)
    with lock.held(ports.files, f"{state.path}/{LOCK}", "intake"):
        intakes = await _open_all(ports, config, state)
        process = _Process(config, intakes)
        link = LinkServer(
            f"{state.path}/{SOCKET}",
            {name: intake.joint for name, intake in intakes.items()},
            process.control,
        )
        async with trio.open_nursery() as serving:
            await serving.start(link.run)
            serving.start_soon(_hear_signals, process)
            async with trio.open_nursery() as machines:
                for intake in intakes.values():
                    await machines.start(intake.run)
                uris = {name: one.status().disks for name, one in intakes.items()}
                compared = {name: list(one.compared) for name, one in intakes.items()}
                _say({"serves": uris, "compared": compared})
                _close_output()
            process.stopped.set()
            await process.ending.wait()  # delivery may still be reading what is durable
            serving.cancel_scope.cancel()


async def _open_all(ports: Machine, config: Config, state: StateFolder) -> dict[str, MachineIntake]:
    found: dict[str, MachineIntake] = {}
    for name, machine in config.machines.items():
        if not machine.live:
            continue
        folder, disks = state.intake_folder(name), disks_of(machine)
        await trio.to_thread.run_sync(durable.make_dirs, ports.files, folder)
        tuned = config.pipeline_of(machine).cache
        limit = tuned.journal_limit
        limits = Limits(
            journal_limit(ports, folder, disks) if limit == "auto" else int(limit),
            throttle=tuned.when_full == "throttle",
        )
        found[name] = await MachineIntake.open(
            this_machine(_THREADS),  # threads of its own: those of others may hang with their disks
            folder,
            name,
            disks,
            limits,
            witnesses=[within(durable.parent(config.source), name)],
        )
    return found


async def _hear_signals(process: _Process) -> None:
    """SIGTERM: stop cleanly, and end."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            process.stop()
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
