"""Calls that block, on worker threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from outcome import Outcome  # what trio hands a thread's result over in

T = TypeVar("T")


class ThreadOffload:
    """trio's worker threads, at most ``workers`` at a time.

    ``trio.to_thread`` also names the thread, copies the context and takes a token that knows its
    borrower: half of what a hop costs, which a guest's every flush pays twice.
    """

    def __init__(self, workers: int):
        self._places = trio.Semaphore(workers)

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread; waits for it even when cancelled."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        try:
            return await _in_thread(call)
        finally:
            self._places.release()

    def lock(self) -> AbstractContextManager[object]:
        """A thread lock."""
        return threading.Lock()


class WaitingOffload:
    """Threads that wait for a network, at most ``workers`` at a time.

    Cancelled, nobody waits for a call any more, and it keeps its place until it ends by its own
    time limit.
    """

    def __init__(self, workers: int):
        self._limiter = trio.CapacityLimiter(workers)

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread; when cancelled, leave it to itself."""
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)

    def lock(self) -> AbstractContextManager[object]:
        """A thread lock."""
        return threading.Lock()


async def _in_thread(call: Callable[[], T]) -> T:
    task = trio.lowlevel.current_task()
    soon = trio.lowlevel.current_trio_token().run_sync_soon

    def deliver(result: Outcome[T]) -> None:
        soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(call, deliver)
    found: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
    return found
