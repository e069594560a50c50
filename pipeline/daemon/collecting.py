"""How often the interpreter looks for garbage in cycles."""

from __future__ import annotations

import gc

_YOUNG = 20_000  # objects made since the last look
_OLDER = 20


def collect_rarely() -> None:
    """Nearly all that a process makes is freed by counting, and each look goes through all that it
    holds: of hundreds of machines, while a guest may be waiting, or of modules at its start."""
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
