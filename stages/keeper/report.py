"""What a keeper did, or would do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class GroupReport:
    """One group. ``floor``, ``next_floor``: commits that the log begins at; ``points``: offered
    before the next floor; ``gone``: points that it lets go. Bytes by kind of object.

    ``deleted``: went in this run (or would). ``waiting_us``: how long until what the newest floor
    has let go may be deleted. ``wanted``: points needed whatever their age, and why.
    ``rolled``: missing rollups that were made (or would be).
    """

    group: str
    machine: str = ""
    tail: int = 0
    floor: int = 1
    floor_number: int = 0
    next_floor: int = 0
    points: int = 0
    gone: int = 0
    deleted: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    to_go: Counter[str] = field(default_factory=Counter)
    to_go_objects: int = 0
    moved: int = 0
    rolled: int = 0
    waiting_us: int = 0
    written: int = 0
    wanted: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def deleted_bytes(self) -> int:
        """Bytes of all that went."""
        return sum(self.deleted.values())


@dataclass
class Report:
    """All groups; ``now_us``: the time by the store's clock."""

    now_us: int
    dry_run: bool
    groups: list[GroupReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True if nothing kept the keeper from its work."""
        return not self.problems and not any(group.problems for group in self.groups)
