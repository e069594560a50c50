"""The daemon's log as JSON, in real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.daemon.running import died, prepare, replicating, running


def test_every_line_is_an_event() -> None:
    with TemporaryDirectory(prefix="bs-") as folder:
        place = prepare(Path(folder))
        text = (place / "c.yaml").read_text().replace("./state}", "./state, log: {format: json}}")
        (place / "c.yaml").write_text(text)
        with running(place) as daemon:
            replicating(place)
            (place / "c.yaml").write_text(text + "nonsense: 1\n")
            daemon.process.send_signal(signal.SIGHUP)
            heard = daemon.heard("nothing is changed")
            (place / "c.yaml").write_text(text)
            intake = daemon.intake
            daemon.process.send_signal(signal.SIGTERM)
            code, err = daemon.told()
            died(intake)
        assert code == 0
        lines = [json.loads(line) for line in [heard, *err.splitlines()]]
        assert lines[-1]["message"] == "stopped"
        assert all({"time", "level", "event", "message"} <= set(line) for line in lines)
        assert lines[0]["message"].startswith("reload: nothing is changed: c.yaml:")
