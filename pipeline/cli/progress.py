"""Progress bars on standard error; nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watch = Callable[[str, int], Callable[[int], None]]


@contextmanager
def progress_bar() -> Iterator[Watch]:
    """Yield a function that opens a bar (title, total bytes) and returns how to advance it."""
    if not sys.stderr.isatty():
        yield lambda title, total: lambda done: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=Console(stderr=True))

    def open_bar(title: str, total: int) -> Callable[[int], None]:
        shown.start()  # only now: a question may have been asked on the same terminal
        task = shown.add_task(title, total=total)
        return lambda done: shown.update(task, advance=done)

    try:
        yield open_bar
    finally:
        shown.stop()
