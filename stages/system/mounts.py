"""Where a device is mounted, out of proc(5)."""

from __future__ import annotations

import os
import re


def find_mount(mountinfo: str, names: set[str], numbers: set[str]) -> str | None:
    """Mount point of the first line whose device number or source is one of these.

    Btrfs shows a number of its own there, so the source counts too. ``mountinfo`` as in proc(5).
    """
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        source = fields[fields.index("-") + 2]
        if fields[2] in numbers or _device_name(source) in names:
            return _unescape(fields[4])
    return None


def find_swap(swaps: str, names: set[str]) -> str | None:
    """``swap`` if a line of /proc/swaps names one of these devices."""
    for line in swaps.splitlines()[1:]:
        path, kind = line.split()[:2]
        if kind == "partition" and _device_name(path) in names:
            return "swap"
    return None


def _device_name(source: str) -> str | None:
    if not source.startswith("/dev/"):
        return None
    return os.path.basename(os.path.realpath(_unescape(source)))


def _unescape(field: str) -> str:
    """Undo the octal escapes of proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
