"""Points and damage, as commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.recover.extract import DamagedExtent
    from stages.recover.points import Point

LISTED = 50  # problems and extents in texts; JSON has all


def grade(point: Point) -> str:
    """A point's class; what lies inside a scan is only part of a state."""
    return point.grade if point.consistent or point.grade == "fuzzy" else "partial"


def point_fields(point: Point) -> dict[str, Any]:
    """A point for JSON."""
    return {
        "seq": point.seq,
        "time": point.time.isoformat(),
        "stamp": point.stamp,
        "class": point.grade,
        "consistent": point.consistent,
        "stored_bytes": point.stored,
        "digest": point.digest.hex(),
    }


def extent_text(extent: DamagedExtent) -> str:
    """A damaged extent for people."""
    end = extent.offset + extent.length
    return f"{extent.disk}: bytes {extent.offset} to {end}: {extent.key}: {extent.reason}"


def extent_fields(extent: DamagedExtent) -> dict[str, Any]:
    """A damaged extent for JSON."""
    return {
        "disk": extent.disk,
        "offset": extent.offset,
        "length": extent.length,
        "object": extent.key,
        "reason": extent.reason,
        "older": extent.older,
    }
