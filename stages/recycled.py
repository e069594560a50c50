"""Arrays whose memory is used again, once nobody looks at them any more.

A new array of megabytes is memory that the kernel has to find, clear and map page by page: that
takes three times as long as to fill it.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

from stages.model import U8


class Recycled:
    """Hands out arrays of up to ``size`` bytes, and keeps the memory of ``keep`` that have gone.

    What is handed out lives as any array does: its memory is free again with the last view of it,
    in whatever thread that goes.
    """

    def __init__(self, size: int, keep: int):
        self._size = size
        self._spare: deque[U8] = deque(maxlen=keep)  # its methods are atomic

    @property
    def spare(self) -> int:
        """Pieces of memory that wait to be used."""
        return len(self._spare)

    def take(self, size: int) -> U8:
        """An array (size,) with anything in it. A larger one than ``size`` is a new one."""
        if size > self._size:
            return np.empty(size, np.uint8)
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = np.empty(self._size, np.uint8)
        # Views refer to the array that they were made of, unless that is a view of another array.
        found: U8 = np.frombuffer(memory.data, np.uint8, size)
        weakref.finalize(found, self._spare.append, memory).atexit = False
        return found
