"""Where the section stands in a page, and which files it is made from: the first mark names them,
by their paths from the page's folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.publish.section import section
from bench.record import read

BEGIN = "<!-- performance: made by python -m bench publish"
END = "<!-- end of the performance section -->"
_FIRST = re.compile(rf"^{re.escape(BEGIN)}([^\n]*?) ?-->$", re.MULTILINE)


class Unmarked(Exception):
    """A page without the two marks, or whose first one names no file that it can."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page's text, before, between and after its marks; ``names`` of the result files."""

    path: Path
    before: str
    names: tuple[str, ...]
    between: str
    after: str

    @staticmethod
    def read(path: Path) -> Page:
        """Raises ``Unmarked`` and ``OSError``."""
        text = path.read_text(encoding="utf-8")
        first = list(_FIRST.finditer(text))
        if len(first) != 1 or text.count(END) != 1 or text.index(END) < first[0].end():
            raise Unmarked(
                f"{path}: one line '{BEGIN} … -->' and, below it, one line '{END}' are needed"
            )
        (found,) = first
        end = text.index(END)
        return Page(
            path,
            text[: found.start()],
            tuple(shlex.split(found[1])),
            text[found.end() : end],
            text[end + len(END) :],
        )

    def with_files(self, files: Sequence[Path]) -> str:
        """The whole page with the section of these files. Raises ``Unmarked`` for one that is kept
        elsewhere than below the page's folder, and ``WrongFile``."""
        folder = self.path.resolve().parent
        for file in files:
            if not file.resolve().is_relative_to(folder):
                raise Unmarked(f"{file}: not below {folder}, so the page cannot name it")
        names = [str(file.resolve().relative_to(folder)) for file in files]
        made = section([read(file) for file in files])
        return f"{self.before}{BEGIN} {shlex.join(names)} -->\n\n{made}\n{END}{self.after}"

    def as_named(self) -> str:
        """The whole page as it should be, by the files that it names itself. Raises ``Unmarked``
        and ``WrongFile``."""
        if not self.names:
            raise Unmarked(f"{self.path}: its mark names no result file")
        return self.with_files([self.path.resolve().parent / name for name in self.names])

    def text(self) -> str:
        """The whole page as it is."""
        names = f" {shlex.join(self.names)}" if self.names else ""
        return f"{self.before}{BEGIN}{names} -->{self.between}{END}{self.after}"
