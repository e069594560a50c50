"""What every command shares: output for people or as JSON, errors with hints and exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from pipeline.cli.streams import STDOUT, deafen
from stages.errors import FULL, BackstayError, ConfigError, NoSpace, leaves

T = TypeVar("T")
INTERRUPTED = 130
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Place(click.types.StringParamType):
    """A path that is none if it is empty: then a variable was, and "" would be the root folder."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As it was given."""
        if not value:
            self.fail("it is empty; is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


PLACE = _Place()


class _Folder(click.Path):
    """Not an empty one, which would be the folder where the command is given."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """As ``click.Path`` does."""
        return super().convert(PLACE.convert(str(value), param, ctx), param, ctx)


FOLDER = _Folder(file_okay=False, resolve_path=True)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: the result as one JSON document on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def emit(as_json: bool, fields: dict[str, Any], text: str) -> None:
    """Print a result, for machines or for people."""
    tell(json.dumps(fields, indent=1, default=str) if as_json else text)


def tell(text: str, *, leave: bool = True) -> None:
    """Print a line of a result. If that cannot be: the end, unless there is more to do."""
    try:
        click.echo(text)
    except OSError:
        if leave:
            raise
        deafen()


def say(message: str) -> None:
    """A remark beside the result, on standard error."""
    click.echo(message, err=True)


def run_async(work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run an async command body. Errors come out as ``fail`` reports them.

    A signal cancels it: everything that was begun is ended in order, and only then is
    ``KeyboardInterrupt`` raised, never in the middle of something. A second one does not wait.
    """
    import trio

    # What is ignored, as by nohup, stays ignored.
    ending = [each for each in ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    if ending and threading.current_thread() is threading.main_thread():
        return trio.run(_until_signalled, ending, work, args)
    return trio.run(work, *args)


_noted = threading.Event()  # a signal has come since the work under way was begun


def was_signalled() -> bool:
    """A signal that ends has come, and the work that it ends may not have noticed yet."""
    return _noted.is_set()


def _noting(receiver: Any) -> Callable[[int, FrameType | None], None]:
    """What a task's receiver of signals does when one comes, and a note that one did."""

    def note(number: int, frame: FrameType | None) -> None:
        _noted.set()
        receiver(number, frame)

    return note


async def _until_signalled(
    ending: list[signal.Signals],
    work: Callable[..., Coroutine[Any, Any, T]],
    args: tuple[Any, ...],
) -> T:
    import trio

    from stages.stage import crew

    ended = False

    async def watch(
        body: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        nonlocal ended
        with trio.open_signal_receiver(*ending) as signals:
            for each in ending:  # the receiver puts back what was there before it
                signal.signal(each, _noting(signal.getsignal(each)))
            task_status.started()  # a receiver of the work's own comes after this one
            async for _ in signals:
                break
        ended = True
        body.cancel()

    try:
        async with crew() as nursery:
            with trio.CancelScope() as body:
                await nursery.start(watch, body)
                result = await work(*args)
            nursery.cancel_scope.cancel()
    finally:
        _noted.clear()  # it ends by that, or has ended before it
    if ended:
        raise KeyboardInterrupt
    return result


def fail(error: BackstayError, as_json: bool) -> int:
    """Report an error and return its exit code."""
    if as_json:
        fields = {
            "error": type(error).__name__,
            "message": error.message,
            "operation": error.operation,
            "subject": error.subject,
            "hint": error.hint,
            "recoverable": error.recoverable,
            "exit_code": error.exit_code,
        }
        click.echo(json.dumps(fields, indent=1), err=True)
        return error.exit_code
    said_where = error.operation == "config" or error.message.startswith(error.subject)
    text = error.message if isinstance(error, ConfigError) and said_where else str(error)
    click.echo(f"backstay: {text}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code


def refused_by_system(error: OSError) -> BackstayError:
    """An error of the operating system that nothing nearer to its cause has put into words."""
    kind = NoSpace if error.errno in FULL else BackstayError
    message, subject = error.strerror or str(error), str(error.filename or "")
    if subject != STDOUT:
        return kind(message, subject=subject)
    deafen()  # or the same error comes again at the very end
    return kind(
        f"cannot be written: {message}",
        subject=subject,
        hint="only what was to be said here is missing; what was done before it, is done",
    )


def interrupted(as_json: bool) -> int:
    """Report an interruption by a person and return its exit code."""
    if as_json:
        fields = {"error": "Interrupted", "message": "interrupted", "exit_code": INTERRUPTED}
        click.echo(json.dumps(fields, indent=1), err=True)
    else:
        say("interrupted")
    return INTERRUPTED


def unheard() -> int:
    """Whoever read the output has gone: leave without another word."""
    deafen()
    return INTERRUPTED


@contextmanager
def ending_is_interruption() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does, also where nothing is async."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    for each, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup has it ignored, a library may want it
            signal.signal(each, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def end_with(code: int) -> NoReturn:
    """Leave the process with an exit code of the table."""
    sys.stdout.flush()
    sys.exit(code)


def first_failure(error: BaseException) -> BaseException:
    """The error to report of a group: ours before others, and interruptions before all."""
    found = leaves(error)
    for kind in (KeyboardInterrupt, BackstayError):
        for leaf in found:
            if isinstance(leaf, kind):
                return leaf
    return found[0]


def human(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def rate(size: float, seconds: float) -> str:
    """Bytes a second for people."""
    return f"{human(size / seconds)}/s" if seconds > 0 else "-"
