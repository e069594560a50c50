"""What an alert says, and how it is written down. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.control.model import Health, Reason
from pipeline.health.calm import Change

MAX_REASONS = 20
MAX_TEXT = 500  # characters of a message or hint


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """Health of ``machine`` ("": the daemon) went from ``before`` to ``after`` at ``at_us``.
    ``dropped``: how many alerts this receiver has missed since the last one that was sent."""

    machine: str
    before: Health
    after: Health
    reasons: tuple[Reason, ...]
    at_us: int
    host: str
    dropped: int = 0

    @staticmethod
    def of(machine: str, change: Change, at_us: int, host: str) -> AlertMessage:
        """Of a change."""
        return AlertMessage(machine, change.before, change.after, change.reasons, at_us, host)

    def after_losses(self, dropped: int) -> AlertMessage:
        """The same, saying what was lost."""
        return replace(self, dropped=dropped)

    @property
    def text(self) -> str:
        """One line for people."""
        whom = self.machine or "the daemon"
        if self.after is Health.NORMAL:
            return f"{whom}: well again (was {self.before})"
        why = "; ".join(reason.message for reason in self.reasons if reason.health is self.after)
        return f"{whom}: {self.after}: {why}" if why else f"{whom}: {self.after}"

    def fields(self) -> dict[str, Any]:
        """For JSON; ``version`` changes when the meaning of a field does."""
        at = datetime.fromtimestamp(self.at_us / 1e6, UTC)
        return {
            "version": 1,
            "time": at.isoformat(timespec="milliseconds"),
            "host": self.host,
            "machine": self.machine,
            "before": str(self.before),
            "after": str(self.after),
            "text": _short(self.text),
            "reasons": [
                {
                    "code": reason.code,
                    "health": str(reason.health),
                    "message": _short(reason.message),
                    "hint": _short(reason.hint),
                }
                for reason in self.reasons[:MAX_REASONS]
            ],
            "dropped": self.dropped,
        }

    def body(self) -> bytes:
        """As it is sent: at most about 100 KiB."""
        return json.dumps(self.fields()).encode() + b"\n"

    def environment(self) -> Mapping[str, str]:
        """For a command that does not read JSON."""
        return {
            "BACKSTAY_HOST": self.host,
            "BACKSTAY_MACHINE": self.machine,
            "BACKSTAY_BEFORE": str(self.before),
            "BACKSTAY_HEALTH": str(self.after),
            "BACKSTAY_REASONS": " ".join(reason.code for reason in self.reasons[:MAX_REASONS]),
            "BACKSTAY_TEXT": _short(self.text).replace("\0", ""),
        }


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
