"""A process that appends to a journal, and one that opens it anew: ``write FOLDER``, ``open
FOLDER``."""

from __future__ import annotations

import random
import sys

import trio

from stages.cache.journal.recover import open_journal
from stages.stream import ROW, Entry, Kind
from stages.system import this_machine

SIZE = 9000


def content(number: int) -> bytes:
    """What record ``number`` carries."""
    return random.Random(number).randbytes(SIZE)


def entry(number: int) -> Entry:
    """Record ``number``."""
    return Entry(Kind.WRITE, 1, number, ROW.pack(number, 1, 0), b"", (content(number),), SIZE)


def tell(line: str) -> None:
    """To whoever has started us."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def write(folder: str) -> None:
    """Two records that are durable; a third one, once something was said to us."""
    writer, _ = await open_journal(this_machine(2), folder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in (1, 2):
            await writer.sync(writer.push(entry(number), 0))
        tell("durable")
        sys.stdin.readline()
        nursery.start_soon(writer.sync, writer.push(entry(3), 0))
        for _ in range(20):  # turns of the loop, until it is on its way
            await trio.lowlevel.checkpoint()
        tell("on its way")


async def reopen(folder: str) -> None:
    """What a following life finds, in bytes."""
    tell("opening")
    _, found = await open_journal(this_machine(2), folder)
    assert not found.damaged, found.damaged
    tell(str(found.kept))


if __name__ == "__main__":
    trio.run({"write": write, "open": reopen}[sys.argv[1]], sys.argv[2])
