"""A supervisor in a process of its own, and what is asked of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.daemon.link_client import IntakeGone
from tests.cli.support import Place
from tests.daemon.running import PATIENCE, ask, died
from tests.forked import Forked
from tests.waiting import until

ROOT = Path(__file__).parents[2]


class Refused(Exception):
    """What the supervisor said."""

    def __init__(self, found: dict[str, Any]):
        super().__init__(found["message"])
        self.error: str = found["error"]
        self.hint: str = found["hint"]


@dataclass
class Host:
    """A running one."""

    place: Place
    process: subprocess.Popen[str]
    log: Path

    def ask(self, do: str, **fields: Any) -> Any:
        """Raises ``Refused``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        if "error" in found:
            raise Refused(found)
        return found["answer"]

    def operate(self, operation: str, machine: str = "web1", **parameters: Any) -> Any:
        return self.ask("operate", operation=operation, machine=machine, parameters=parameters)

    def view(self, machine: str = "web1") -> dict[str, Any]:
        return dict(self.ask("view", machine=machine))

    def until(
        self, state: str, machine: str = "web1", *, without: str = "", **more: Any
    ) -> dict[str, Any]:
        """Wait for a state, for other fields of the view, and for the end of a reason."""

        def look() -> dict[str, Any] | None:
            view = self.view(machine)
            reasons = [reason["code"] for reason in view["reasons"]]
            as_wanted = all(view[key] == value for key, value in more.items())
            return view if view["state"] == state and as_wanted and without not in reasons else None

        return until(lambda: (self.view(machine), self.log.read_text()[-3000:]), look)

    def ended(self, number: int) -> dict[str, Any]:
        """Wait for the end of a job."""
        job = partial(self.ask, "job", number=number)
        until(job, lambda: job()["ended_us"] is not None)
        return dict(job())

    def states(self, machine: str = "web1") -> list[str]:
        """All that it went through."""
        events = self.ask("events")
        return [
            e["fields"]["state"] for e in events if (e["kind"], e["machine"]) == ("state", machine)
        ]

    def kill(self) -> None:
        """kill -9 of the supervisor; intake goes on."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-3000:]


@contextmanager
def hosted(place: Place, **environment: str) -> Iterator[Host]:
    """Run it, and leave nothing behind but what was killed on purpose."""
    log = place / "host.log"
    with log.open("ab") as complaints:
        process = Forked(
            "host",
            [str(place / "c.yaml")],
            place.root,
            os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=subprocess.PIPE,
            stderr=complaints,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == '"ready"\n', log.read_text()[-3000:]
        yield Host(place, process, log)
    finally:
        process.kill()
        process.communicate()


def bury_intake(place: Place) -> None:
    """End what outlives its supervisor."""
    with suppress(IntakeGone):
        pid = int(ask(place / "state", "status")["pid"])
        os.kill(pid, signal.SIGKILL)
        died(pid)
