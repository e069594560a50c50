"""How a process begins, before its imports: what it need not do, it does not."""

from __future__ import annotations

import atexit
import gc
import os

_YOUNG = 20_000  # objects made since the last look
_OLDER = 20


def collect_rarely() -> None:
    """Nearly all that a process makes is freed by counting, and each look for cycles goes through
    all that it holds: of hundreds of machines, while a guest may be waiting, or of modules at its
    start. And at its end once more, when it is the kernel that takes everything back."""
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
    atexit.register(gc.freeze)


def begin_lean() -> None:
    """``collect_rarely``, and no threads for algebra that nobody does: numpy's would wait actively,
    one for each core, here and in what is started from here."""
    collect_rarely()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
