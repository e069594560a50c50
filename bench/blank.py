"""A key and an empty vault, made once and copied for each subject that begins with one.

To make them takes two programs and no time that anyone measures; a run of all scenarios begins with
some fifty of them. Nothing in them depends on where they lie.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


class Blank:
    """Keeps what ``make`` puts into a folder; gone when this process ends."""

    def __init__(self) -> None:
        self._kept: tempfile.TemporaryDirectory[str] | None = None

    def into(self, folder: Path, make: Callable[[Path], object]) -> None:
        """Put it into ``folder``, which is there; ``make`` is called the first time. Raises what
        that raises, and then keeps nothing."""
        if self._kept is None:
            kept = tempfile.TemporaryDirectory(prefix="backstay-blank-")
            try:
                make(Path(kept.name))
            except BaseException:
                kept.cleanup()
                raise
            self._kept = kept
        shutil.copytree(self._kept.name, folder, dirs_exist_ok=True)
        for log in ("stdout", "stderr"):  # of the programs that made it
            (folder / log).unlink(missing_ok=True)
