"""A person is asked at a terminal, and leaves: nothing is done, and nobody waits for an answer."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.support import ROOT

ASKS = """\
import trio
from pipeline.cli import main
from pipeline.cli.confirming import confirmed
from pipeline.cli.console import run_async

async def ask():
    await trio.lowlevel.checkpoint()
    confirmed("commit", "web1", None, hint="--confirm web1", nothing="nothing was done")
    print("DONE")

main.backstay.main = lambda *_, **how: run_async(ask)
main.main(["commit"])
"""
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (b"\x03", 130, ""),
        (b"\x04", 130, ""),
        (b"web2\n", 2, "not confirmed: nothing was done"),
        (b"web1\n", 0, "DONE"),
    ],
    ids=["ctrl-c", "ctrl-d", "another name", "the name"],
)
def test_a_person_at_a_terminal(typed: bytes, code: int, said: str, tmp_path: Path) -> None:
    """Where a task of an event loop asks, whose signals are only noted, as everywhere."""
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    pid, terminal = pty.fork()
    if not pid:
        # Whoever runs the tests in the background may have had them ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, str(script)])
    heard, last = b"", time.monotonic() + PATIENCE
    try:
        while time.monotonic() < last:
            # What is typed before it reads may be dropped by the terminal: a person types again.
            if select.select([terminal], [], [], 1.0)[0]:
                try:
                    heard += os.read(terminal, 4096)
                except OSError:
                    break  # it has ended
            elif b"to go on:" in heard:
                os.write(terminal, typed)
        else:
            os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code, heard
    finally:
        os.close(terminal)
    assert said.encode() in heard
    assert b"Traceback" not in heard
    assert (b"DONE" in heard) == (code == 0)
