"""Disks as an operator configures them, a process that may end at any of its file operations, and
all that the disks have held."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from xxhash import xxh3_128_digest

from stages.capture.group.group import Group
from stages.model import BLOCK
from stages.stream import REGION
from tests.whole.world import Crash, World

SIZES = (REGION + 24 * BLOCK + 512, 30 * BLOCK, 9 * BLOCK + 700)
MOST = 2 * REGION


def joined(parts: dict[str, bytes]) -> bytes:
    """Of some disks by name, as one."""
    return xxh3_128_digest(b"".join(name.encode() + parts[name] for name in sorted(parts)))


@dataclass
class Configured:
    """One seed. ``wanted``: paths by name, as the configuration has them."""

    seed: int
    changes: int = 6
    fault_at: int | None = None
    wanted: dict[str, str] = field(default_factory=dict)
    states: set[bytes] = field(default_factory=set)
    operations: int = 0
    dead: bool = False
    made: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)  # operations of each change

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.world = World(self.seed)
        self.group: Group | None = None
        self._parts: dict[str, bytes] = {}
        self.wanted = {"root": self._file(), "data": self._file()}

    # the operator

    def _file(self) -> str:
        self.made += 1
        path = f"/disks/{self.made}"
        content = bytearray(self.dice.choice(SIZES))
        for _ in range(8):
            at = self.dice.randrange(len(content) // BLOCK) * BLOCK
            content[at : at + BLOCK] = self.dice.randbytes(BLOCK)
        self.world.files.put(path, bytes(content), sparse=False)
        return path

    def _size(self, path: str) -> int:
        found = self.world.files.stat(path)
        assert found is not None
        return found.size

    def _operator(self, what: str = "") -> None:
        """Change what is configured, or how large it is."""
        what = what or self.dice.choice(["add", "grow", "grow", "remove", "replace"])
        name = self.dice.choice(sorted(self.wanted))
        path = self.wanted[name]
        if what == "remove" and len(self.wanted) > 1:
            del self.wanted[name]
        elif what == "add" and len(self.wanted) < 3:
            new = self.dice.choice([n for n in ("root", "data", "logs") if n not in self.wanted])
            self.wanted[new] = self._file()
        elif what == "grow" and self._size(path) < MOST:
            more = self.dice.choice([1, 512, BLOCK, 30 * BLOCK, REGION])
            data = self.world.files.read(path, 1 << 30)
            tail = bytes(more) if self.dice.random() < 0.3 else self.dice.randbytes(more)
            self.world.files.put(path, data + tail, sparse=False)
        elif what == "replace":
            other = self._file()
            missing = self._size(path) - self._size(other)
            if missing > 0:
                data = self.world.files.read(other, 1 << 30)
                self.world.files.put(other, data + self.dice.randbytes(missing), sparse=False)
            self.wanted[name] = other

    # its history

    def _around(self, name: str, path: str, call: Any) -> Any:
        if name != "close":
            if self.dead:
                raise Crash("a dead process writes")
            self.operations += 1
            if self.operations == self.fault_at:
                if self.dice.random() < 0.5:
                    call()
                    self._note()
                self.dead = True
                raise Crash("the process was killed")
        found = call()
        if path.startswith("/disks/") and name in ("pwrite", "punch"):
            self._note(path)
        return found

    def _note(self, path: str = "") -> None:
        """What the disks hold now, and any of them without the others: a start may leave some
        out."""
        if self.group is None:
            shown = {name: (at, self._size(at)) for name, at in self.wanted.items()}
        else:
            disks = self.group.disks.values()
            shown = {disk.name: (disk.source.path, disk.size) for disk in disks}
        for name, (at, size) in shown.items():
            if not path or at == path or name not in self._parts:
                data = self.world.files.read(at, 1 << 30)[:size]
                self._parts[name] = xxh3_128_digest(data)
        for count in range(1, len(shown) + 1):
            for names in combinations(sorted(shown), count):
                self.states.add(joined({name: self._parts[name] for name in names}))
