"""The process whose children ``test_kill`` kills: ``python -m tests.whole.killer``.

It imports the program once. For each line of JSON on its input, ``{"argv": […], "kill_at": N}``, it
forks a child that carries out the command; the child is killed with SIGKILL, by itself, just before
its file operation number N, from 0. The answer is a line too: how it ended, after how many file
operations, and what it said. Syncs are counted and not made: a killed process loses no page cache.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar, cast
from unittest import mock

import pipeline.cli.keys
import pipeline.cli.restore
import pipeline.cli.run
import pipeline.cli.vault
import pipeline.config
import pipeline.founding
import pipeline.protect
import pipeline.recovery
import stages.system
from pipeline.cli.main import main
from stages.ports import Machine
from tests.ports.watched import WatchedFiles, unsynced

T = TypeVar("T")
COMMANDS = (pipeline.cli.keys, pipeline.cli.restore, pipeline.cli.run, pipeline.cli.vault)
LIBRARY = (pipeline.config, pipeline.founding, pipeline.protect, pipeline.recovery)


def mortal(kill_at: int | None, steps: mmap.mmap) -> Machine:
    """The real machine; the process dies just before the file operation ``kill_at``."""
    numbers = itertools.count()

    def around(name: str, path: str, call: Callable[[], T]) -> T:
        number = next(numbers)
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps[:8] = (number + 1).to_bytes(8, "little")
        return unsynced(name, path, call)

    files = WatchedFiles(around, stages.system.SystemFiles())
    offload, entropy = stages.system.ThreadOffload(4), stages.system.SystemEntropy()
    return Machine(stages.system.SystemClock(), offload, entropy, files)


def child(argv: list[str], kill_at: int | None, steps: mmap.mmap, said: int) -> None:
    """Carry out a command; does not return."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    machine = mortal(kill_at, steps)
    code = 1
    try:
        with mock.patch.object(stages.system, "this_machine", lambda *_: machine):
            main(argv)
    except SystemExit as leaving:
        code = cast("int", leaving.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(order: dict[str, Any]) -> dict[str, Any]:
    """One command in a child of its own."""
    with mmap.mmap(-1, 8) as steps, tempfile.TemporaryFile() as said:
        number = os.fork()
        if not number:
            child(order["argv"], order["kill_at"], steps, said.fileno())
        _, status = os.waitpid(number, 0)
        said.seek(0)
        return {
            "killed": os.WIFSIGNALED(status),
            "code": os.waitstatus_to_exitcode(status),
            "steps": int.from_bytes(steps[:8], "little"),
            "said": said.read().decode(errors="replace"),
        }


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(serve(json.loads(line))) + "\n")
        sys.stdout.flush()
