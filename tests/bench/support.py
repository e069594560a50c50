"""Subjects made for tests: an honest copier, one that corrupts, one that fails."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.context import Context, Scale
from bench.measure import Command
from bench.subjects import Copy, Subject

TINY = Scale(
    content=1 << 20,
    disk=64 << 20,
    written=8 << 20,
    commits=3,
    huge=1 << 30,
    mapped=256 << 20,
    sizes=(1 << 20, 2 << 20),
    chain=300,
    chained=4 << 20,
    churn=60,
    month=4,
    churned=2 << 20,
    few=True,
)


class Copier(Subject):
    """Copies with cp; under any name."""

    def __init__(self, name: str, *, spoil: bool = False, fail: bool = False):
        self.name = name
        self._spoil = spoil
        self._fail = fail

    def open(self, folder: Path, image: Path) -> Copy:
        return CopierCopy(folder, image, self._spoil, self._fail)


class CopierCopy(Copy):
    """One file; ``spoil`` changes a byte of what is brought back."""

    def __init__(self, folder: Path, image: Path, spoil: bool, fail: bool):
        super().__init__(folder, image)
        self._spoil = spoil
        self._fail = fail

    def backup(self) -> Command:
        if self._fail:
            return Command((sys.executable, "-c", "raise SystemExit('no room')"))
        return Command(("cp", "--", str(self.image), str(self.repository)))

    def restore(self, target: Path) -> Command:
        spoil = "data[len(data) // 2] ^= 1;" if self._spoil else ""
        script = (
            "import sys; from pathlib import Path;"
            "data = bytearray(Path(sys.argv[1]).read_bytes());"
            f"{spoil}"
            "Path(sys.argv[2]).write_bytes(data)"
        )
        paths = (str(self.repository), str(self.restored(target)))
        return Command((sys.executable, "-c", script, *paths))

    def restored(self, target: Path) -> Path:
        return target / "image"


class Absent(Copier):
    """Not installed."""

    def missing(self) -> str:
        return "no-such-program"


def context(folder: Path, *subjects: Subject, repeat: int = 1) -> Context:
    """A tiny context whose image is a plain file: no mkfs needed."""
    image = folder / "disk.img"
    image.write_bytes(bytes(4096) * 8 + bytes(range(256)) * 16 * 24)
    made = Context(
        work=folder / "work",
        cache=folder / "cache",
        repeat=repeat,
        subjects=subjects,
        scale=TINY,
        workers=2,
    )
    made._image = image
    return made
