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
    "give_memory_back",
    "this_machine",
]

NETWORK_WORKERS = 64  # as many puts as a machine may have in flight
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 4 << 20  # malloc.h


def give_memory_back() -> None:
    """Keep glibc from holding on to freed memory; nothing where the libc is another.

    By itself it raises its thresholds with every large block freed and then keeps the heap: the
    peak of an initial replication was 253 MB, with a fixed threshold 197 MB, at the same speed.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def this_machine(workers: int = 4) -> Machine:
    """Return the real ports; ``workers`` bounds the threads."""
    give_memory_back()
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
