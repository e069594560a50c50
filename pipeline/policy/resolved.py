"""A machine's policy with its texts understood: zone, window, the time to begin."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.policy import Policy
from pipeline.config.when import moment_us, window_minutes, zone_of
from pipeline.policy.window import Window


@dataclass(frozen=True, slots=True)
class Resolved:
    """``begin_us``: when initial replication is to begin; None for at once."""

    policy: Policy
    window: Window
    begin_us: int | None

    @staticmethod
    def of(policy: Policy) -> Resolved:
        """Reads the zone's rules. Make it anew after a reload."""
        zone = zone_of(policy.timezone)
        begin = moment_us(policy.initial_replication, zone)
        return Resolved(policy, Window(*window_minutes(policy.resync_window), zone), begin)
