"""``backstay site`` without fsync, for tests of thousands of objects: ``CONFIG --create``."""

from __future__ import annotations

import sys
from functools import partial

import trio

from pipeline.site.server import serve_site
from pipeline.supervisor.notify import Notifier
from stages.ports import Machine
from stages.system import this_machine
from tests.ports.watched import WatchedFiles, unsynced

if __name__ == "__main__":
    real = this_machine(16)
    ports = Machine(real.clock, real.offload, real.entropy, WatchedFiles(unsynced))
    trio.run(partial(serve_site, create=True), sys.argv[1], ports, Notifier())
