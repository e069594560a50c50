"""Ceilings of what is moved: bytes a second that the machine can do at most, beside subjects that
count bytes too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.context import Context, ceiling
from bench.results import Entry, Sample, find, ratio
from bench.roles import SEPARATOR

SOCKET = "ceiling: socket copy, 256 KiB at a time"
READ = "ceiling: read only"
_KINDS = {SOCKET: "socket", READ: "read"}
_MIB = "mib"  # the figure: MiB a second


def capped(context: Context, name: str, image: Path) -> Sample:
    """Run ``SOCKET`` or ``READ`` over an image."""
    return ceiling(context, _KINDS[name], image, 1)


def of_bytes(entries: Sequence[Entry], name: str, subject: str, loads: Sequence[str]) -> list[str]:
    """Which part of a ceiling's bytes a second ``subject`` reaches under each load."""
    most = find(entries, name)
    found = []
    for load in loads:
        mine = find(entries, f"{load}{SEPARATOR}{subject}")
        share = ratio(mine.median(_MIB) if mine else None, most.median(_MIB) if most else None)
        if share is not None:
            found.append(f"{load}: {share:.2f} of {name}, in bytes")
    return found
