"""What cannot be undone wants the machine's name: typed, or given with ``--confirm``."""

from __future__ import annotations

import os
import select
import signal
import termios
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

import click

from pipeline.cli.console import ENDING, was_signalled
from stages.errors import UsageError

_LINE = 4096  # bytes: what a terminal holds of one


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


def typed(question: str, *, hidden: bool = False) -> str:
    """What a person types, unseen if ``hidden``. ``KeyboardInterrupt`` for Ctrl-C, a signal that
    ends, or the end of what is typed: also where a task asks, whose event loop only notes that
    there was a signal, and whenever it comes. To read at once would miss one that comes just before
    the system is asked for a line."""
    unseen = _unseen() if hidden else nullcontext()
    with _signals_interrupt(), _woken() as woken, unseen:
        if was_signalled():  # while the task was at something else
            raise KeyboardInterrupt
        click.echo(f"{question}: ", nl=False, err=True)
        while 0 not in select.select([0, *woken], [], [])[0]:
            for each in woken:
                os.read(each, _LINE)  # of a signal that ends nothing
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(0, _LINE)
            if not more:
                raise KeyboardInterrupt
            line += more
    try:
        return line.decode(errors="strict" if hidden else "replace").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError(
            "what was typed is not UTF-8", hint="see the terminal's settings"
        ) from None


@contextmanager
def _unseen() -> Iterator[None]:
    """The terminal shows nothing of what is typed."""
    before = termios.tcgetattr(0)
    quiet = [*before]
    quiet[3] &= ~termios.ECHO  # of the local modes
    termios.tcsetattr(0, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        click.echo(err=True)


@contextmanager
def _woken() -> Iterator[list[int]]:
    """Descriptors on which a signal can be read as soon as it has come."""
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield [reading]
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        os.close(reading)
        os.close(writing)


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
