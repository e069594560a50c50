"""What is wrong in a configuration file, and how it is told.

A problem is one line, ``file.yaml:LINE:COLUMN: machines.web1.policy: message; hint``, lines and
columns counted from 1 in characters, so that editors and terminals can jump to it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from stages.errors import ConfigError

MAX_PROBLEMS = 20  # told at once; more of them are counted only
MAX_SHOWN = 40  # characters of a value or key that are repeated in a message
MAX_LISTED = 8  # names listed in a hint

Path: TypeAlias = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9._-]+")
_MAX_COMPARED = 64  # characters of a word, because difflib is quadratic
_MAX_NAMES = 1000  # among which a word is looked for


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong at ``line`` and ``column`` (from 1); ``path`` is empty for the file.

    Where ``known`` is given, the hint is the one of them that ``word`` may mean; it is looked for
    only when it is shown, because that takes long and a file may have very many problems.
    """

    line: int
    column: int
    path: Path
    message: str
    hint: str = ""
    word: str = ""
    known: frozenset[str] = frozenset()

    def render(self, file: str) -> str:
        """The line that is shown to the user."""
        where = f"{file}:{self.line}:{self.column}: "
        path = f"{path_text(self.path)}: " if self.path else ""
        hint = self.hint or suggest(self.word, self.known)
        return f"{where}{path}{self.message}" + (f"; {hint}" if hint else "")


def failure(source: str, problems: Iterable[Problem]) -> ConfigError:
    """One error that tells the first ``MAX_PROBLEMS`` problems, each once, in file order."""
    file = base_name(source)
    told = sorted(dict.fromkeys(problems), key=lambda found: (found.line, found.column))
    lines = [problem.render(file) for problem in told[:MAX_PROBLEMS]]
    if len(told) > MAX_PROBLEMS:
        lines.append(f"{file}: and {len(told) - MAX_PROBLEMS} more")
    return ConfigError("\n".join(lines), operation="config", subject=source)


def base_name(source: str) -> str:
    """The file's own name, as it stands before each position; printable."""
    name = source.rpartition("/")[2]
    return name if name.isprintable() else quote(name)


def path_text(path: Path) -> str:
    """``machines.web1.disks``; parts that are no plain words are quoted and cut."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if _is_bare(part) else quote(part))
    return text


def quote(text: str) -> str:
    """``text`` in double quotes, cut, on one line and printable whatever it holds."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return '"' + "".join(_printable(char) for char in cut) + '"'


def show(value: object) -> str:
    """A value of the file for a message."""
    if value is None:
        return "empty"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        digits = str(value)
        return digits if len(digits) <= MAX_SHOWN else digits[:MAX_SHOWN] + "…"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known name that ``word`` probably means, or None."""
    found = difflib.get_close_matches(word[:_MAX_COMPARED].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint: the closest known name, or the known names, or nothing if there is none."""
    names = sorted(name for name in known if name)[:_MAX_NAMES]
    if (match := closest(word, names)) is not None:
        return f"did you mean {quote(match)}?"
    if not names:
        return ""
    listed = [name if _is_bare(name) else quote(name) for name in names[:MAX_LISTED]]
    return f"known: {', '.join(listed)}" + (", …" if len(names) > MAX_LISTED else "")


def _is_bare(text: str) -> bool:
    return len(text) <= 2 * MAX_SHOWN and _BARE.fullmatch(text) is not None


def _printable(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
