"""What all machines of the supervisor share: its ports, its memory, and the processes below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.config.model import Config
from pipeline.daemon.child import Tell
from pipeline.state import StateFolder
from pipeline.supervisor.records import Records
from pipeline.supervisor.work import Carriers
from stages.ports import Machine


class Shipping(Protocol):
    """The delivery process, as a machine sees it."""

    async def pause(self, name: str, *, paused: bool) -> None:
        """Leave a machine alone, or not. Said again it costs nothing."""

    async def retry(self, name: str) -> None:
        """End its wait on the ladder."""


class Capturing(Protocol):
    """The intake process, as a machine sees it."""

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """``IntakeGone``, or the command's error."""


@dataclass
class Parts:
    """``config`` is replaced when it is read again."""

    ports: Machine
    config: Config
    state: StateFolder
    records: Records
    carriers: Carriers
    shipping: Shipping
    capturing: Capturing
    tell: Tell

    async def event(
        self,
        kind: str,
        machine: str,
        message: str,
        fields: Mapping[str, Any] | None = None,
        job: int | None = None,
    ) -> None:
        """Something happened."""
        await self.records.append_event(kind, machine, job, message, fields or {})
