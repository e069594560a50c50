"""The process that ``test_file_kill`` kills: ``python -m tests.store.putter ROOT [STOP_AT]``.

It puts ``k/0``, ``k/1`` … and prints ``begin N`` and ``end N`` around each. With STOP_AT, the name
of a file operation, it prints ``stop`` just before that operation of put 3 and waits for ever.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import TypeVar

import trio

from stages.store.file import FileStore
from stages.system import SystemFiles
from tests.ports.watched import WatchedFiles, machine

T = TypeVar("T")

STOP_AT_PUT = 3


def parts(number: int) -> list[bytes]:
    """What object ``number`` holds: a few parts, up to 300 KB."""
    source = random.Random(number)
    return [source.randbytes(source.randrange(100_000)) for _ in range(number % 3 + 1)]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def run(root: str, stop_at: str) -> None:
    number = 0

    def stop(name: str, path: str, call: Callable[[], T]) -> T:
        if number == STOP_AT_PUT and name == stop_at:
            say("stop")
            sys.stdin.read()
        return call()

    files = WatchedFiles(stop) if stop_at else SystemFiles()
    store = FileStore(root, machine(files))
    while True:
        say(f"begin {number}")
        await store.put(f"k/{number}", parts(number))
        say(f"end {number}")
        number += 1


if __name__ == "__main__":
    trio.run(run, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
