"""How often the interpreter looks for garbage in cycles."""

from __future__ import annotations

import gc

_YOUNG = 20_000  # objects made since the last look
_OLDER = 20


def collect_rarely() -> None:
    """For processes that hold hundreds of machines: nearly all that they make is freed by counting,
    and each look goes through all that they hold, while a guest may be waiting."""
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
