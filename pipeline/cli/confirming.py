"""What cannot be undone wants the machine's name: typed, or given with ``--confirm``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from pipeline.cli.console import ENDING
from stages.errors import UsageError


def confirmed(
    operation: str,
    machine: str,
    given: str | None,
    *,
    hint: str,
    also: Collection[str] = (),
    nothing: str = "nothing is done",
) -> str:
    """The name that was typed or ``given``: the machine's, or one of ``also``. Raises
    ``UsageError``, with ``hint`` and ``nothing`` (what did not happen)."""
    if given is None:
        if not os.isatty(0):
            raise UsageError(
                "has to be confirmed, and there is no terminal to ask on",
                operation=operation,
                subject=machine,
                hint=hint,
            )
        given = typed(f"Type the machine's name ({machine}) to go on")
    if given != machine and given not in also:
        raise UsageError(
            f"not confirmed: {nothing}", operation=operation, subject=machine, hint=hint
        )
    return given


def typed(question: str) -> str:
    """What a person types. ``KeyboardInterrupt`` for Ctrl-C, a signal that ends, or the end of
    what is typed: also where a task asks, whose event loop only notes that there was a signal."""
    with _signals_interrupt():
        try:
            return str(click.prompt(question, default="", show_default=False, err=True))
        except click.Abort:
            raise KeyboardInterrupt from None


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """What is noted otherwise is raised while this lasts; what is ignored stays ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {each: signal.getsignal(each) for each in ENDING}
    changed = [each for each, how in kept.items() if how is not signal.SIG_IGN]
    for each in changed:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each in changed:
            signal.signal(each, kept[each])
