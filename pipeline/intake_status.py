"""What intake says of a machine: a snapshot, and its form as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from stages.capture.live.scrub import ScrubStatus
from stages.stream import Position


@dataclass(frozen=True, slots=True)
class IntakeStatus:
    """A snapshot. Sizes in bytes; of the scan ``percent``, and ``scan_done`` of ``scan_total``;
    ``hot_regions``: what would be compared after a crash; ``reason`` of the gap or the tracking;
    ``unlogged``: why the state folder cannot be written, while it cannot; ``resting``: writes are
    only tracked, as ordered; ``held``: scans wait, as ordered; ``closed``: why no client may come,
    "" if they may."""

    machine: str
    state: str
    reason: str
    trouble: str
    unlogged: str
    percent: float
    head: Position
    durable: Position
    committed: Position
    journal_bytes: int
    journal_limit: int
    hot_regions: int
    delivering: bool
    connections: int
    disks: dict[str, str]
    compared: tuple[str, ...]
    scrub: ScrubStatus
    resting: bool = False
    held: bool = False
    closed: str = ""
    scan_done: int = 0
    scan_total: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        plain = {name: getattr(self, name) for name in _STATUS}
        plain["scrub"] = {name: getattr(self.scrub, name) for name in _SCRUB}
        return plain


# Looked up once: hundreds of machines are asked each second.
_STATUS = tuple(each.name for each in fields(IntakeStatus))
_SCRUB = tuple(each.name for each in fields(ScrubStatus))
