"""What measuring processes know of a vault that was made for them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.model import BLOCK

MACHINE, DISK = "huge", "root"


@dataclass(frozen=True, slots=True)
class Made:
    """A vault, how to open it, and what some of its blocks hold: ``probes`` of block, number."""

    vault: str
    key: str
    state: str
    signer: str
    group: str
    disk_bytes: int
    tail: int
    checkpoint: int
    probes: tuple[tuple[int, int], ...]
    window: int

    def save(self, path: Path) -> Path:
        """As JSON, for measuring processes."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @staticmethod
    def load(path: Path) -> Made:
        """Undo ``save``."""
        fields = json.loads(path.read_text())
        fields["probes"] = tuple((block, number) for block, number in fields["probes"])
        return Made(**fields)


def content(number: int) -> bytes:
    """What a block of that number holds."""
    return number.to_bytes(8, "little") * (BLOCK // 8)
