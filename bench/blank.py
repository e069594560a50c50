"""A key and an empty vault, made once and copied for each subject that begins with one.

To make them takes two programs and no time that anyone measures; a run of all scenarios begins with
some fifty of them. Nothing in them depends on where they lie.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path


class Blank:
    """Keeps what ``make`` puts into a folder; gone when this process ends."""

    def __init__(self) -> None:
        self._kept: Path | None = None

    def into(self, folder: Path, make: Callable[[Path], object]) -> None:
        """Put it into ``folder``, which is there; ``make`` is called the first time. Raises what
        that raises, and then keeps nothing."""
        if self._kept is None:
            kept = Path(tempfile.mkdtemp(prefix="backstay-blank-"))
            weakref.finalize(self, shutil.rmtree, kept, ignore_errors=True)
            make(kept)
            self._kept = kept
        shutil.copytree(self._kept, folder, dirs_exist_ok=True)
        for log in ("stdout", "stderr"):  # of the programs that made it
            (folder / log).unlink(missing_ok=True)
