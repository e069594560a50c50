"""How the stages of a line spent its time, as shares; and which of them holds it back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stages.channel import ChannelStatistics
from stages.stage import StageStatistics

Shares = Mapping[str, Mapping[str, float]]


def stage_shares(found: Iterable[StageStatistics], seconds: float) -> dict[str, dict[str, float]]:
    """By the stage's name: ``busy``, ``wait_in``, ``wait_out`` of ``seconds`` of one of its
    ``workers``, 0 to 1."""
    shares: dict[str, dict[str, float]] = {}
    for one in found:
        of = seconds * one.workers
        mine = shares[one.name] = {}
        for name, spent in (
            ("busy", one.busy),
            ("wait_in", one.wait_in),
            ("wait_out", one.wait_out),
        ):
            mine[name] = min(1.0, spent / of) if of > 0 else 0.0
    return shares


def channel_shares(
    found: Iterable[ChannelStatistics], seconds: float
) -> dict[str, dict[str, float]]:
    """By the channel's name: ``fill`` on average and at most (``peak``) of its bytes; how long its
    two sides waited for each other (``send_wait``, ``receive_wait``) as shares of ``seconds``. An
    item larger than the channel makes a fill above 1; several senders a wait above 1."""
    return {
        one.name: {
            "fill": one.mean_bytes / one.max_bytes,
            "peak": one.peak_bytes / one.max_bytes,
            "send_wait": one.send_wait / seconds if seconds > 0 else 0.0,
            "receive_wait": one.receive_wait / seconds if seconds > 0 else 0.0,
        }
        for one in found
    }


def bottleneck(stages: Shares) -> str | None:
    """The stage whose workers were busy for the greatest share of the time: to make the others
    faster would gain nothing. Of equals the first; None where none did anything."""
    busy = {name: found.get("busy", 0.0) for name, found in stages.items()}
    if not any(busy.values()):
        return None
    return max(busy, key=lambda name: busy[name])
