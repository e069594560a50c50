"""What intake is to do with a machine by its record: journal or only track its writes, hold its
scans, let no client in. A level, not an order: said again it costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.daemon.link_client import IntakeGone
from pipeline.lifecycle.rules import rests
from pipeline.supervisor.facts import Look
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.records import MachineRecord

HANDED_OVER = "its machine is prepared for a planned failover"

Arranged = tuple[bool, bool, bool]
"""It rests, its scans are held, no client may come."""


def arranged(row: Mapping[str, Any]) -> Arranged:
    """As intake says that it is."""
    return bool(row["resting"]), bool(row["held"]), bool(row["closed"])


class Arrangement:
    """Of one machine: what intake was told, and when."""

    def __init__(self, parts: Parts, machine: str):
        self._parts = parts
        self._machine = machine
        self._told: Arranged | None = None  # None: it may be anything
        self._at = float("-inf")

    def forget(self) -> None:
        """Whoever was told is gone, or may have been told otherwise."""
        self._told = None

    async def keep(self, record: MachineRecord, look: Look) -> None:
        """Have it be so. Raises what intake answers, ``IntakeGone`` not: the next one is told."""
        if look.row is None:
            self.forget()
            return
        if look.at > self._at:
            self._told = arranged(look.row)
        resting = rests(record.situation, scheduled=record.start_us is not None)
        wanted = resting, record.held, record.closed
        if self._told == wanted:
            return
        try:
            await self._parts.capturing.ask(
                "arrange",
                machine=self._machine,
                rest=f"protection is {record.situation.state.value}" if resting else "",
                held=record.held,
                closed=HANDED_OVER if record.closed else "",
            )
        except IntakeGone:
            self.forget()
        else:
            self._told = wanted
            self._at = self._parts.ports.clock.monotonic()
