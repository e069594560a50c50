"""The daemon's log: one line for each event, for people or as JSON.

``event(name, message, **fields)`` is all that most code needs; ``with about(machine=..., job=...)``
says whom everything inside is about, also in tasks that are started there. The console shows the
message alone, as people know it; JSON has ``time``, ``level``, ``event``, ``message``, ``machine``,
``job`` and the fields.

A log never harms the daemon: a reader that is gone, slow or has no room costs lines, which are
counted and told in the next line that can be written. No line is longer than ``MAX_LINE``, which is
what a pipe takes in one piece, so that lines of several processes do not mix.
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
Value = str | int | float | bool | None
Format = Literal["console", "json"]

MAX_LINE = 4096  # bytes, with the line's end: PIPE_BUF
RANK: dict[Level, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}

_MAX_TEXT = 2000  # characters of a text in JSON, so that a line is never too long for its shape
_CUT = "…"


@dataclass(frozen=True, slots=True)
class _About:
    machine: str = ""
    job: int | None = None


_ABOUT: ContextVar[_About] = ContextVar("about", default=_About())  # noqa: B039 - it is frozen


@contextmanager
def about(machine: str | None = None, job: int | None = None) -> Iterator[None]:
    """What is logged inside is about this machine, this job, or both; None leaves it as it is."""
    before = _ABOUT.get()
    found = _About(
        before.machine if machine is None else machine, before.job if job is None else job
    )
    token = _ABOUT.set(found)
    try:
        yield
    finally:
        _ABOUT.reset(token)


class Log:
    """Writes lines to a file descriptor, standard error as a rule."""

    def __init__(
        self, descriptor: int = 2, shape: Format = "console", level: Level = "info"
    ) -> None:
        self.shape: Format = shape
        self.level: Level = level
        self.lost = 0  # lines since the last one that could be written
        self._descriptor = descriptor
        self._torn = False  # the last line is there in part

    def event(
        self, name: str, message: str = "", /, *, level: Level = "info", **fields: Value
    ) -> None:
        """Write a line, or lose it. ``name`` is stable; a field called ``machine`` or ``job`` takes
        the place of what ``about`` says."""
        if RANK[level] < RANK[self.level]:
            return
        if self.lost:
            self._line("log.lost", f"{self.lost} lines of the log were lost", "warning", {})
        self._line(name, message, level, fields)

    def _line(self, name: str, message: str, level: Level, fields: dict[str, Value]) -> None:
        render = _json if self.shape == "json" else _console
        lost = self.lost
        if self._write(render(name, message, level, fields)):
            if name == "log.lost":
                self.lost = 0
        else:
            self.lost = lost + (name != "log.lost")

    def _write(self, line: bytes) -> bool:
        try:
            if not self._has_room():
                return False
            if self._torn:  # by a disk that has become full
                line = b"\n" + line
            written = os.write(self._descriptor, line)
            self._torn = written != len(line)
            return not self._torn
        except OSError:  # the reader is gone, the disk is full, the terminal was closed
            return False

    def _has_room(self) -> bool:
        """A pipe that nobody empties must not hold the daemon up."""
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return any(events & select.POLLOUT for _, events in poll.poll(0))


_LOG = Log()


def configure(shape: Format, level: Level) -> None:
    """How this process logs from now on."""
    _LOG.shape, _LOG.level = shape, level


def event(name: str, message: str = "", /, *, level: Level = "info", **fields: Value) -> None:
    """See ``Log.event``; to this process's log."""
    _LOG.event(name, message, level=level, **fields)


def warning(name: str, message: str = "", /, **fields: Value) -> None:
    """An event that somebody should look at."""
    _LOG.event(name, message, level="warning", **fields)


def error(name: str, message: str = "", /, **fields: Value) -> None:
    """An event that somebody must look at."""
    _LOG.event(name, message, level="error", **fields)


def printable(text: str) -> str:
    """``text`` on one line: what is not printable is escaped, so that nobody forges a line or
    speaks to a terminal through a name."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _console(name: str, message: str, _: Level, fields: dict[str, Value]) -> bytes:
    text = printable(message or " ".join([name, *(f"{k}={v}" for k, v in fields.items())]))
    data = text.encode(errors="replace")
    if len(data) >= MAX_LINE:
        data = data[: MAX_LINE - 8].decode(errors="ignore").encode() + _CUT.encode()
    return data + b"\n"


def _json(name: str, message: str, level: Level, fields: dict[str, Value]) -> bytes:
    at, whom = time.time_ns() // 1000, _ABOUT.get()
    now = datetime.fromtimestamp(at // 1_000_000, UTC)
    line: dict[str, Value] = {
        "time": f"{now:%Y-%m-%dT%H:%M:%S}.{at % 1_000_000:06}Z",
        "level": level,
        "event": name,
        "message": _short(message),
        "machine": whom.machine or None,
        "job": whom.job,
    }
    line = {key: value for key, value in line.items() if value is not None and value != ""}
    for key, value in fields.items():
        if key not in ("time", "level", "event", "message"):
            line[key] = _short(value) if isinstance(value, str) else value
    while True:
        # ASCII only: what is not printable is escaped by JSON itself.
        data = json.dumps(line, default=str).encode()
        if len(data) < MAX_LINE:
            return data + b"\n"
        key = max(line, key=lambda one: len(str(line[one])))
        line[key] = str(line[key])[: len(str(line[key])) // 2] + _CUT


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + _CUT
