"""Sizes, durations and rates as people write them: ``16MiB``, ``500KB``, ``4096``; ``60s``,
``100ms``; ``20MB/s``, ``100Mbit/s``."""

from __future__ import annotations

import re

from pipeline.config.problems import quote, show, suggest

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": 1 << 40,
}
BIT_UNITS = {"kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

_AMOUNT = re.compile(r"([0-9]{1,20}) ?([A-Za-z]*)")
_EXAMPLE_SIZE = 'for example "16MiB"'
_EXAMPLE_RATE = 'for example "20MB/s" or "100Mbit/s"'
_EXAMPLE_DURATION = 'for example "60s"'


class Wrong(ValueError):
    """A value that cannot be used: ``message`` says what is wrong, ``hint`` what to write."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_size(value: object) -> int:
    """Bytes of a size: a whole number, or one with a unit (KiB is 1024, KB is 1000).

    Raises ``Wrong``.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise Wrong(f"a size cannot be negative, as {show(value)} is")
        return value
    number, unit = _amount(value, "a size", _EXAMPLE_SIZE)
    if not unit:
        return number
    if unit not in SIZE_UNITS:
        raise Wrong(f"{quote(unit)} is not a unit of size", _likely_unit(unit))
    return number * SIZE_UNITS[unit]


def format_size(size: int) -> str:
    """The shortest exact way to write ``size`` bytes in binary units; ``parse_size`` reads it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return str(size)


def parse_duration(value: object) -> int | float:
    """Seconds of a duration: a whole number with the unit ms, s, m, h or d.

    A whole number of seconds is an int. Raises ``Wrong``.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        raise Wrong(f"{show(value)} needs a unit", f'write "{show(value)}s" for seconds')
    number, unit = _amount(value, "a duration", _EXAMPLE_DURATION)
    if not unit:
        raise Wrong(f"{show(value)} needs a unit", f'write "{number}s" for seconds')
    if unit not in DURATION_UNITS:
        raise Wrong(f"{quote(unit)} is not a unit of time", "known: ms, s, m, h, d")
    if unit == "ms":
        return number / 1000 if number % 1000 else number // 1000
    return int(number * DURATION_UNITS[unit])


def format_duration(seconds: float) -> str:
    """The shortest way to write ``seconds``, exact to the ms; ``parse_duration`` reads it."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    seconds = int(seconds)
    for unit in ("d", "h", "m"):
        if seconds and seconds % DURATION_UNITS[unit] == 0:
            return f"{int(seconds // DURATION_UNITS[unit])}{unit}"
    return f"{seconds}s"


def parse_rate(value: object) -> int:
    """Bytes a second of a rate: a size, or a number of kbit, Mbit or Gbit, and "/s".

    Raises ``Wrong``.
    """
    if not isinstance(value, str) or not value.strip().endswith("/s"):
        known = value.strip() if isinstance(value, str) else show(value)
        raise Wrong(f"must be a rate, not {quote(known)}", _EXAMPLE_RATE)
    number, unit = _amount(value.strip().removesuffix("/s").rstrip(), "a rate", _EXAMPLE_RATE)
    if unit in BIT_UNITS:
        return number * BIT_UNITS[unit] // 8
    if unit not in SIZE_UNITS:
        exact = {known.lower(): known for known in (*SIZE_UNITS, *BIT_UNITS)}
        meant = exact.get(unit.lower())
        known = f"known: {', '.join((*SIZE_UNITS, *BIT_UNITS))}, each with /s"
        hint = f"did you mean {quote(meant)}?" if meant else known
        raise Wrong(f"{quote(unit)} is not a unit of a rate", hint)
    return number * SIZE_UNITS[unit]


def format_rate(rate: int) -> str:
    """The shortest exact way to write ``rate`` bytes a second; ``parse_rate`` reads it."""
    for unit in ("TB", "GB", "MB", "KB"):
        if rate and rate % SIZE_UNITS[unit] == 0:
            return f"{rate // SIZE_UNITS[unit]}{unit}/s"
    return f"{format_size(rate)}{'' if rate % KIB == 0 and rate else 'B'}/s"


def _amount(value: object, kind: str, example: str) -> tuple[int, str]:
    if not isinstance(value, str):
        raise Wrong(f"must be {kind}, not {show(value)}", example)
    match = _AMOUNT.fullmatch(value.strip())
    if match is None:
        raise Wrong(f"{quote(value)} is not {kind}", f"a whole number and a unit, {example}")
    return int(match[1]), match[2]


def _likely_unit(unit: str) -> str:
    exact = {known.lower(): known for known in SIZE_UNITS}
    if unit.lower() in exact:
        return f"did you mean {quote(exact[unit.lower()])}?"
    if f"{unit.lower()}ib" in exact:
        return f"write {exact[unit.lower() + 'ib']} (1024) or {exact[unit.lower() + 'b']} (1000)"
    return suggest(unit, SIZE_UNITS)
