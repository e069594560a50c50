"""The real machine behind the ports: the only modules of ``stages`` that import os or time."""

from __future__ import annotations

import ctypes
import os
from types import MappingProxyType

from stages.ports import Machine
from stages.system.clock import SystemClock, SystemEntropy
from stages.system.file import SystemFile
from stages.system.files import SystemFiles
from stages.system.mounts import find_mount, find_swap
from stages.system.sockets import SocketCalls
from stages.system.syncing import RingSync
from stages.system.threads import ThreadOffload, WaitingOffload

__all__ = [
    "RingSync",
    "SocketCalls",
    "SystemClock",
    "SystemEntropy",
    "SystemFile",
    "SystemFiles",
    "ThreadOffload",
    "WaitingOffload",
    "find_mount",
    "find_swap",
    "this_machine",
    "tune_memory",
]

NETWORK_WORKERS = 64  # as many puts as a machine may have in flight
# malloc.h. Blocks below the second are taken from the heap, whatever thread asks.
_MALLOC = {
    -1: 32 << 20,  # M_TRIM_THRESHOLD
    -3: 8 << 20,  # M_MMAP_THRESHOLD
    -8: 1,  # M_ARENA_MAX
}


def tune_memory() -> None:
    """How glibc keeps freed memory; nothing where the libc is another.

    By itself it raises its thresholds with every large block freed, and has a heap for each thread:
    it keeps much more than is in use. A frame and what it is compressed to, though, must come from
    memory that is there: what is mapped anew each time has to be cleared and found page by page,
    which costs more than to seal it.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        for option, value in _MALLOC.items():
            tune(option, value)


def this_machine(workers: int = 4) -> Machine:
    """Return the real ports; ``workers`` bounds the threads."""
    tune_memory()
    offload = ThreadOffload(workers)
    return Machine(
        SystemClock(),
        offload,
        SystemEntropy(),
        SystemFiles(),
        WaitingOffload(NETWORK_WORKERS),
        MappingProxyType(dict(os.environ)),
        RingSync(offload),
    )
