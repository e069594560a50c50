"""Memory for what is not journalled yet, given in order of arrival."""

from __future__ import annotations

from collections import deque

import trio

from stages.stage import Signal
from stages.stream import JournalUnusable


class _Waiter:
    __slots__ = ("granted", "size", "woken")

    def __init__(self, size: int) -> None:
        self.size = size
        self.granted = False
        self.woken = trio.Event()


class Credit:
    """The reserving half of a journal in ``folder``: ``memory`` bytes. ``failed``: nobody gets any
    more."""

    def __init__(self, memory: int, folder: str):
        self.folder = folder
        self.failed: JournalUnusable | None = None
        self._memory = memory
        self._held = 0
        self._waiting: deque[_Waiter] = deque()
        self._work = Signal()  # somebody waits: what is queued should be written

    def try_reserve(self, size: int) -> bool:
        """See ``Stream``."""
        if self._waiting or self.failed is not None or not self._fits(size):
            return False
        self._held += size
        return True

    async def reserve(self, size: int) -> None:
        """See ``Stream``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.failed is not None:
            raise self.failed
        if not self.try_reserve(size):
            waiter = _Waiter(size)
            self._waiting.append(waiter)
            self._work.set()
            try:
                await waiter.woken.wait()
            except BaseException:
                if waiter.granted:
                    self.release(size)
                elif waiter in self._waiting:
                    self._waiting.remove(waiter)
                    self._grant()
                raise
            if not waiter.granted:
                raise self._why()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def release(self, size: int) -> None:
        """See ``Stream``."""
        self._held -= size
        self._grant()

    def _fits(self, size: int) -> bool:
        return self._held <= 0 or self._held + size <= self._memory

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            waiter = self._waiting.popleft()
            self._held += waiter.size
            waiter.granted = True
            waiter.woken.set()

    def _let_go(self) -> None:
        """Whoever waits will get nothing."""
        while self._waiting:
            self._waiting.popleft().woken.set()

    def _why(self) -> JournalUnusable:
        if self.failed is not None:
            return self.failed
        return JournalUnusable("is closed", operation="journal", subject=self.folder)
