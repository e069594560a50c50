"""The place in a live stream behind a commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.stream import Position
from stages.vault.codec import Fields


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """Everything before ``position`` is in the vault; ``in_gap``: it lies inside a gap."""

    position: Position
    in_gap: bool

    def fields(self) -> dict[str, Any]:
        """As msgpack fields."""
        run, offset = self.position
        return {"run": run, "offset": offset, "in_gap": self.in_gap}

    @staticmethod
    def of(fields: Fields | None) -> StreamPlace | None:
        """Undo ``fields``; None where there is no such place."""
        if fields is None:
            return None
        position = Position(fields.number("run"), fields.number("offset"))
        return StreamPlace(position, fields.flag("in_gap"))
