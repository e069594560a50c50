"""A process that serves an overlay until it is killed: ``python -m ... FILE SOCKET``."""

from __future__ import annotations

import sys

import trio

from stages.nbd.handler import DeviceHandler
from stages.nbd.listening import UnixAddress
from stages.nbd.server import NbdServer
from stages.recover.overlay import Overlay
from stages.system import this_machine
from tests.nbd.disks import Base


async def main(path: str, socket: str) -> None:
    overlay = await Overlay.open(Base(1 << 20), this_machine(), path, identity="killed")
    async with trio.open_nursery() as nursery:
        await nursery.start(NbdServer([DeviceHandler(overlay)]).run, UnixAddress(socket))
        sys.stdout.write("serving\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
