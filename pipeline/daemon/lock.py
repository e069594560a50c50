"""One process of a kind: a locked file in the state folder, free again when its process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stages.errors import StateLocked
from stages.ports import Files


@contextmanager
def held(files: Files, path: str, what: str) -> Iterator[None]:
    """Hold the lock at ``path`` for a process called ``what``. Raises ``StateLocked``."""
    file = files.open_write(path, create=True)
    try:
        if not file.lock():
            raise StateLocked(
                f"{what} is running already",
                operation="run",
                subject=path,
                hint="wait until it has ended",
            )
        yield
    finally:
        file.close()


def is_free(files: Files, path: str) -> bool:
    """Nobody holds the lock at ``path``."""
    try:
        with held(files, path, ""):
            return True
    except StateLocked:
        return False
