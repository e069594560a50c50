"""One line for each event, whatever is in it and whoever reads it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipeline import logs
from pipeline.logs import MAX_LINE, Log, about, printable

TEXTS = st.text(st.characters(codec=None), max_size=200) | st.text("x\x00\u202e😀", max_size=9000)
VALUES = TEXTS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)


def _said(shape: logs.Format, do: Callable[[Log], None]) -> bytes:
    with tempfile.TemporaryFile() as file:
        do(Log(file.fileno(), shape))
        file.seek(0)
        return file.read()


@given(
    st.sampled_from(["console", "json"]),
    TEXTS,
    st.dictionaries(st.text("abc", min_size=1, max_size=3), VALUES, max_size=4),
)
def test_an_event_is_one_printable_line(
    shape: logs.Format, message: str, fields: dict[str, Any]
) -> None:
    data = _said(shape, lambda log: log.event("x", message, **fields))
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert len(data) <= MAX_LINE
    assert data[:-1].decode().isprintable()
    if shape == "json":
        line = json.loads(data)
        assert line["event"] == "x"
        if len(message) < 100 and not fields:
            assert line.get("message", "") == message


def test_the_console_shows_what_people_know() -> None:
    said = _said("console", lambda log: log.event("intake.serving", "intake: serving", pid=7))
    assert said == b"intake: serving\n"
    assert _said("console", lambda log: log.event("a.b", pid=7)) == b"a.b pid=7\n"
    assert printable("a\x1b[2Jb\nc\u2028") == "a\\x1b[2Jb\\x0ac\\u2028"


def test_levels() -> None:
    def some(log: Log) -> None:
        log.level = "warning"
        for level in ("debug", "info", "warning", "error"):
            log.event(level, level=level)

    assert _said("console", some) == b"warning\nerror\n"


def test_json_says_when_and_about_whom() -> None:
    def some(log: Log) -> None:
        with about(machine="web1"):
            with about(job=4):
                log.event("a", "hello", bytes=3)
            log.event("b", machine="web2")
        log.event("c", time="now", event="forged")

    lines = [json.loads(line) for line in _said("json", some).splitlines()]
    assert lines[0] | {"time": ""} == {
        "time": "", "level": "info", "event": "a", "message": "hello", "machine": "web1",
        "job": 4, "bytes": 3,
    }  # fmt: skip
    assert (lines[1]["machine"], "job" in lines[1]) == ("web2", False)
    assert (lines[2]["event"], "machine" in lines[2]) == ("c", False)
    assert lines[2]["time"].endswith("Z")


async def test_tasks_inherit_whom_they_are_about() -> None:
    with tempfile.TemporaryFile() as file:
        log = Log(file.fileno(), "json")

        async def task() -> None:
            await trio.lowlevel.checkpoint()
            log.event("x")

        async with trio.open_nursery() as nursery:
            for name in ("web1", "web2"):
                with about(machine=name):
                    nursery.start_soon(task)
        file.seek(0)
        found = {json.loads(line)["machine"] for line in file}
    assert found == {"web1", "web2"}


def test_a_reader_that_is_gone_costs_lines_only() -> None:
    read, write = os.pipe()
    os.close(read)
    log = Log(write)
    log.event("x")
    log.event("y")
    assert log.lost == 2
    os.close(write)
    log.event("z")  # the descriptor is closed
    assert log.lost == 3


def test_a_reader_that_does_not_read_holds_nobody_up() -> None:
    read, write = os.pipe()
    log = Log(write)
    for _ in range(100):
        log.event("x" * 3000)
    lost = log.lost
    assert 0 < lost < 100
    while len(os.read(read, 1 << 20)) == 1 << 20:
        pass
    log.event("y")
    assert log.lost == 0
    said = os.read(read, 1 << 20).splitlines()
    assert said == [f"{lost} lines of the log were lost".encode(), b"y"]
    os.close(read)
    os.close(write)


def test_a_full_disk_costs_lines_only() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    log = Log(descriptor)
    log.event("x")
    assert log.lost == 1
    os.close(descriptor)


@pytest.mark.parametrize("level", ["warning", "error"])
def test_the_process_has_a_log(
    capfd: pytest.CaptureFixture[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LOG", Log())
    logs.configure("json", "info")
    getattr(logs, level)("a.b", "hello")
    logs.event("c", level="debug")
    (line,) = capfd.readouterr().err.splitlines()
    assert (json.loads(line)["level"], json.loads(line)["event"]) == (level, "a.b")
