"""The rolling scrub in real processes: bytes that change behind the splitter's back are found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.cli.support import KEYS, MIB, Place
from tests.daemon.running import (
    PATIENCE,
    SIZE,
    ask,
    comes_back,
    prepare,
    qemu_io,
    replicating,
    restored_is_the_source,
    running,
)
from tests.waiting import until

# As the supervisor starts it, with a pass in seconds instead of days.
HASTY = """
import sys
from pipeline.daemon import capturing, intake_main, opening
opening.scrub_seconds = capturing.scrub_seconds = lambda *_: 1.0
sys.argv = ["intake", sys.argv[1]]
sys.exit(intake_main.main())
"""


@contextmanager
def hasty_intake(place: Place) -> Iterator[Path]:
    """Intake in a process of its own, which the daemon takes over; yields its log."""
    log = place / "intake.err"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", HASTY, str(place / "c.yaml")],
            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert b"serves" in process.stdout.readline()
        yield log
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def scrub(place: Place) -> dict[str, Any]:
    return dict(ask(place / "state", "status")["machines"]["web1"]["scrub"])


def passes(place: Place, more: int) -> dict[str, Any]:
    """Wait for so many passes that begin from now on."""
    wanted = scrub(place)["passes"] + more + 1
    until(lambda: scrub(place), lambda: scrub(place)["passes"] >= wanted, pause=0.1)
    return scrub(place)


def test_bytes_that_change_behind_its_back_are_found_and_corrected() -> None:
    with TemporaryDirectory(prefix="bs-") as folder:
        place = prepare(Path(folder))
        with hasty_intake(place) as log, running(place, ready="taken over") as daemon:
            replicating(place)
            found = passes(place, 1)
            assert (found["mismatches"], found["total"], found["trouble"]) == (0, SIZE, "")
            assert found["clean_us"]
            # A guest that writes all the time is no reason for alarm.
            qemu_io(place, *(f"write -P {n} {n * 37 % 11}M 300k" for n in range(1, 120)))
            assert passes(place, 2)["mismatches"] == 0
            with (place / "root.img").open("r+b") as image:
                image.seek(3 * MIB + 8192)
                image.write(os.urandom(100))
                image.seek(9 * MIB)
                image.write(os.urandom(5000))
            found = passes(place, 2)
            assert found["mismatches"] == 3
            assert found["last_us"]
            comes_back(place)
            replicating(place)
            found = passes(place, 2)
            assert (found["mismatches"], found["uncorrected"], found["doubted"]) == (3, 0, 0)
            restored_is_the_source(place)
            listed = place.json("points", "web1", *KEYS)["points"]
            assert listed
            said = place.backstay("status", "c.yaml", "--folder")
            assert "the scrub found 3 blocks" in said.out
            daemon.end()
        told = [line for line in log.read_text().splitlines() if "without a write" in line]
        assert len(told) == 2
        assert told[0].startswith("web1/root: ")
