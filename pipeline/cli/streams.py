"""The standard streams of a command, whatever it was started with.

A stream that is closed becomes one of /dev/null: else the next file that is opened, a restored disk
perhaps, gets its number, and whatever writes to "standard error" writes into it. Remarks that
nobody can read are lost and cost nothing: a restore does not end because its log is full. A result
that cannot be written is an error of *standard output*, not of some disk.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT = "standard output"  # the file name of its errors
_STREAMS = 3


class _Results(io.FileIO):
    """Standard output: its errors say that they are its own."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Remarks(io.FileIO):
    """Standard error: what cannot be written is lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def steady() -> None:
    """Make the streams of this process so. Streams that a caller has put in their place stay."""
    for number in range(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole life
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Results(1, "w", closefd=False), sys.__stdout__)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Remarks(2, "w", closefd=False), sys.__stderr__)


def deafen() -> None:
    """What is still to be written to standard output goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _text(raw: io.FileIO, like: TextIO | None) -> TextIO:
    """As Python makes it, of another raw file."""
    encoding = "utf-8" if like is None else like.encoding
    errors = "backslashreplace" if like is None else like.errors
    by_line = raw.fileno() == 2 or raw.isatty()
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding, errors, line_buffering=by_line)
