"""A row of the table: a fault, a command, what it says, how it ends, what is left behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.world import ACCESS, Said, World

RUN = ("run", "c.yaml", "--once", "--machine", "web1")
RESTORE = ("restore", "web1", *ACCESS, "--to", "out")
POINTS = ("points", "web1", *ACCESS)
VERIFY = ("verify", "web1", *ACCESS)

# What must not change: when a run is refused before it ships anything; when it is not, or fails
# half-way; when a command reads only.
NOT_SHIPPED = ("vault", "op.key", "op.pub", "state/writer.key")
SHIPPED = ("op.key", "op.pub", "state/writer.key")
READ = ("vault", "state", "root.img", "data.img", "op.key", "op.pub")

PARTIAL = "no file has its name; the .partial files are finished by --salvage, or later"
UNTOUCHED = "nothing was written; the next healthy run and restore succeed"


def in_process(world: World, argv: tuple[str, ...]) -> Said:
    """Run the command in this process."""
    return world.backstay(*argv)


def nothing(world: World) -> None:
    """No further check."""


def no_names(world: World) -> None:
    """Nothing passes for a restored disk."""
    assert not list(world.path("out").glob("*.img"))


@dataclass(frozen=True)
class Row:
    """``arrange`` makes the situation and returns the command.

    ``sees`` is standard error without its last line, the ``hint``; ``prints`` standard output, if
    it matters. In all three ``{name}`` stands for a value of the world, ``…`` for anything on one
    line. ``kept``: paths whose bytes must not change; ``check`` looks at the rest. ``heals``: once
    the fault is taken back, a run and a restore succeed.
    """

    fault: str
    arrange: Callable[[World], tuple[str, ...]]
    code: int
    sees: str = ""
    hint: str = ""
    state: str = UNTOUCHED
    prints: str | None = None
    kept: tuple[str, ...] = (".",)
    check: Callable[[World], None] = nothing
    act: Callable[[World, tuple[str, ...]], Said] = in_process
    needs: str = ""
    heals: bool = True

    @property
    def error(self) -> str:
        """All of standard error."""
        return self.sees + (f"\n  hint: {self.hint}" if self.hint else "")


def matches(wanted: str, said: str, names: dict[str, str]) -> bool:
    """True if ``said`` is ``wanted`` with its placeholders filled in."""
    pattern = re.escape(wanted.rstrip("\n"))
    for name, value in names.items():
        pattern = pattern.replace(re.escape("{" + name + "}"), re.escape(value))
    return re.fullmatch(pattern.replace("…", "[^\n]*"), said.rstrip("\n")) is not None
