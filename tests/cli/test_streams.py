"""Commands whose standard streams are closed, full, or read by nobody any more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.cli.console import refused_by_system, tell
from pipeline.cli.streams import STDOUT, deafen, steady
from stages.errors import NoSpace
from tests.cli.support import KEYS, Shipped
from tests.forked import Forked


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>/dev/full"])
def test_a_restore_does_not_end_because_nobody_can_read_what_it_says(
    shipped: Shipped, short: Path, streams: str
) -> None:
    prefix = ("sh", "-c", f'exec "$@" {streams}', "sh")
    process = shipped.start("restore", "web1", *KEYS, "--to", str(short), prefix=prefix)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert shipped.is_restored(str(short))


def test_a_result_that_has_no_room_is_told_as_that(shipped: Shipped) -> None:
    with Path("/dev/full").open("wb") as full:
        process = Forked("backstay", ("points", "web1", *KEYS), shipped.root, {}, stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 9
    assert said.startswith("backstay: standard output: cannot be written: No space left on device")
    assert "hint: " in said


def test_help_that_nobody_reads_is_no_defect(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread:
        process = Forked("backstay", ("--help",), tmp_path, {}, stdout=unread)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_a_line_that_cannot_be_written_does_not_keep_the_next_machine_from_its_turn() -> None:
    with _stdout("/dev/full"):
        tell("web1: done", leave=False)
        tell("web2: done", leave=False)
        assert Path(f"/proc/self/fd/{sys.stdout.fileno()}").readlink() == Path(os.devnull)
    with _stdout("/dev/full"):
        with pytest.raises(OSError, match="No space left"):
            tell("web1: done")
        deafen()


def test_streams_that_were_put_in_their_place_stay() -> None:
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "stdout", out), patch.object(sys, "stderr", err):
        steady()
        assert (sys.stdout, sys.stderr) == (out, err)


def test_only_standard_output_is_called_so() -> None:
    told = refused_by_system(OSError(28, "No space left on device", "/srv/a.img"))
    assert isinstance(told, NoSpace)
    assert (told.subject, told.message) == ("/srv/a.img", "No space left on device")
    with _stdout("/dev/null"):
        told = refused_by_system(OSError(28, "No space left on device", STDOUT))
    assert (told.subject, told.message) == (STDOUT, "cannot be written: No space left on device")


@contextmanager
def _stdout(path: str) -> Iterator[None]:
    with (
        Path(path).open("w") as file,
        patch.object(sys, "stdout", file),
    ):
        yield
