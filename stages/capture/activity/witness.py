"""A word left outside the state folder: writes went on that no activity log knows of.

The state folder's disk may fail, fill or hang while the source is well. Guests go on then, and what
they write is marked in memory only; so that a next life compares everything, a file says so beside
the sources, or in another place that has nothing to do with the state folder. It is durable before
the first such write.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from stages import durable
from stages.ports import Files

_MARK = "backstay-unlogged"


class Witness:
    """``paths``: where it may stand. Those on the file system of ``state`` share its fate."""

    def __init__(self, files: Files, paths: Sequence[str], state: str):
        self._files = files
        self._paths = tuple(paths)
        self._state = state
        self._apart: tuple[str, ...] = ()

    def look(self) -> str:
        """Where one stands, "" if nowhere; and learn which places are apart. Blocks."""
        device = self._device(self._state)
        self._apart = tuple(
            path for path in self._paths if self._device(durable.parent(path)) not in (None, device)
        )
        for path in self._paths:
            with suppress(OSError):
                if self._files.stat(path) is not None:
                    return path
        return ""

    def leave(self, why: str) -> None:
        """Durably, in as many places as will have it; ``OSError`` if none does. Blocks."""
        refused = OSError("no place apart from the state folder")
        left = False
        for path in self._apart:
            try:
                self._write(path, why)
                left = True
            except OSError as error:
                refused = error
        if not left:
            raise refused

    def remove(self) -> None:
        """The log knows everything again. One that stays costs a comparison. Blocks."""
        for path in self._paths:
            with suppress(OSError):
                if self._files.stat(path) is not None:
                    durable.remove(self._files, path)

    def _write(self, path: str, why: str) -> None:
        file = self._files.open_write(path, create=True)
        try:
            file.pwrite(0, f"{why}\n{self._state}: the next start compares the disks.\n".encode())
            file.fsync()
        finally:
            file.close()
        self._files.sync_dir(durable.parent(path))

    def _device(self, path: str) -> int | None:
        try:
            found = self._files.stat(path)
        except OSError:
            return None
        return None if found is None else found.device


def beside(source: str) -> str:
    """Where it stands for a disk that is a file."""
    name = source.rpartition("/")[2]
    return f"{durable.parent(source)}/.{name}.{_MARK}"


def within(folder: str, machine: str) -> str:
    """Where it stands for a machine in a folder."""
    return f"{folder}/.{machine}.{_MARK}"
