"""The intake process: captures all live machines of a configuration until it is told to stop.

Run by the supervisor (``intake_main``), in a session of its own: it goes on serving its disks when
the supervisor ends. One line of JSON on its standard output says that it serves, or why
it cannot.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import trio

from pipeline import logs
from pipeline.config import load
from pipeline.config.model import Config
from pipeline.daemon import lock
from pipeline.daemon.capturing import Capturing
from pipeline.daemon.link_server import LinkServer
from pipeline.daemon.names import INTAKE_LOCK, INTAKE_SOCKET
from pipeline.daemon.opening import THREADS, failed_over, open_all
from pipeline.daemon.points import Points
from pipeline.state import StateFolder
from stages import durable
from stages.errors import (
    BackstayError,
    leaves,
)
from stages.ports import Machine
from stages.system import this_machine


def capture(path: str, vouched: frozenset[str]) -> int:
    """Serve and capture what the configuration at ``path`` names: the process's exit code.
    ``vouched``: disks that are not compared."""
    try:
        config = load(path)
        logs.configure(config.daemon.log.format, config.daemon.log.level)
        trio.run(_serve, this_machine(THREADS), config, vouched)
    except (BackstayError, OSError, BaseExceptionGroup) as raised:
        failed = leaves(raised)[0]
        if not isinstance(failed, BackstayError | OSError):
            raise
        _say(_failure(failed))
        return failed.exit_code if isinstance(failed, BackstayError) else 1
    return 0


async def _serve(ports: Machine, config: Config, vouched: frozenset[str]) -> None:
    state = StateFolder.open(ports, config.daemon.state, lock=False)
    durable.make_dirs(ports.files, state.path)
    with lock.held(ports.files, f"{state.path}/{INTAKE_LOCK}", "intake"):
        live = [name for name, machine in config.machines.items() if machine.live]
        closed = await failed_over(ports, config, state, live)
        names = [name for name in live if name not in closed]
        opened, taken = await open_all(ports, config, state, names, vouched)
        closed |= taken
        process = Capturing(ports, config, state)
        process.joints.update({intake.name: intake.joint for intake in opened})
        link = LinkServer(f"{state.path}/{INTAKE_SOCKET}", process.joints, process.control)
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


async def _hear_signals(process: Capturing) -> None:
    """SIGTERM: stop cleanly, and end."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            await process.stop()
            process.ending.set()


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
    print(json.dumps(fields), flush=True)  # noqa: T201 - what the supervisor waits for


def _close_output() -> None:
    """The supervisor reads to the end of the line, and may be gone later."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
