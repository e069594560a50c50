"""What a daemon's own interface tells of its machines, and what of it is a measurement."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.live import Daemon, used

INTAKE = "intake (CPU)"
_PATIENCE = 60.0
_KINDS = ("busy", "wait_in", "wait_out")


class _Unix(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: str):
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        """To the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def told_of_machines(state: Path) -> list[dict[str, Any]] | None:
    """All machines, as the interface shows them; None while it does not answer."""
    connection = _Unix(str(state / "api.sock"))
    try:
        connection.request("GET", "/v1/machines")
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return list(json.loads(data)["machines"]) if answer.status == 200 else None


@dataclass(frozen=True, slots=True)
class _Look:
    """Worker-seconds by stage and kind, workers by stage; seconds of intake's processors, when."""

    spent: Mapping[str, Mapping[str, float]]
    workers: Mapping[str, int]
    intake: float
    at: float


class StageWatch:
    """How the stages of a daemon with one machine spend the time from now on.

    Delivery's stages tell of themselves at each commit: between two looks lies the time from the
    last commit before the first to the last before the second. Intake is one loop that tells of no
    stages, so what is known of it is how much of a processor it uses until the guest has ``done``:
    a share of 1 bounds it.
    """

    def __init__(self, daemon: Daemon):
        self._daemon = daemon
        self._ended: tuple[float, float] | None = None
        self._before = self._look()

    def done(self) -> None:
        """The guest has ended."""
        self._ended = (used(self._daemon.pid), time.monotonic())

    def since(self) -> dict[str, dict[str, float]]:
        """Shares as ``Sample.stages`` has them; call it when everything is shipped."""
        after = self._look()
        if self._ended:
            after = replace(after, intake=self._ended[0], at=self._ended[1])
        return shares_between(self._before, after)

    def _look(self) -> _Look:
        machines = told_of_machines(self._daemon.state) or [{}]
        stages: Sequence[Mapping[str, Any]] = machines[0].get("stages") or ()
        return _Look(
            {
                one["name"]: {kind: float(one[f"{kind}_seconds"]) for kind in _KINDS}
                for one in stages
            },
            {one["name"]: int(one["workers"]) for one in stages},
            used(self._daemon.pid),
            time.monotonic(),
        )


def shares_between(before: _Look, after: _Look) -> dict[str, dict[str, float]]:
    """What the second look counted more than the first. Counters that went back were begun anew:
    then all that they have counts."""
    more: dict[str, dict[str, float]] = {}
    for stage, spent in after.spent.items():
        was = before.spent.get(stage, {})
        if any(spent[kind] < was.get(kind, 0.0) for kind in _KINDS):
            was = {}
        more[stage] = {kind: spent[kind] - was.get(kind, 0.0) for kind in _KINDS}
    # a stage that is a plain loop counts every moment as one of the three
    passed = max(
        (sum(one.values()) / after.workers[stage] for stage, one in more.items()), default=0.0
    )
    found = {INTAKE: {"busy": min(1.0, (after.intake - before.intake) / (after.at - before.at))}}
    if passed > 0:
        for stage, kinds in more.items():
            of = passed * after.workers[stage]
            found[stage] = {kind: min(1.0, value / of) for kind, value in kinds.items()}
    return found
