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

from pipeline.cli.confirming import _woken
from tests.cli.support import ROOT

ASKS = """\
import signal, sys
import trio
from pipeline.cli import main
from pipeline.cli.confirming import confirmed
from pipeline.cli.console import run_async
from pipeline.cli.keyio import ask as ask_for_passphrase

async def ask():
    await trio.lowlevel.checkpoint()
    if "signalled" in sys.argv:
        signal.raise_signal(signal.SIGINT)  # the loop only notes it
    confirmed("commit", "web1", None, hint="--confirm web1", nothing="nothing was done")
    print("DONE")

def passphrase():
    print("DONE" if ask_for_passphrase("Words to go on", confirm=False) == "web1" else "ELSE")

begin = passphrase if "passphrase" in sys.argv else lambda: run_async(ask)
main.backstay.main = lambda *_, **how: begin()
main.main(["commit"])
"""
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("typed", "code", "said", "words"),
    [
        (None, 130, "", ["signalled"]),
        (b"\x03", 130, "", ["passphrase"]),
        (b"\x04", 130, "", ["passphrase"]),
        (b"web1\n", 0, "DONE", ["passphrase"]),
        (b"\x03", 130, "", []),
        (b"\x04", 130, "", []),
        (b"web2\n", 2, "not confirmed: nothing was done", []),
        (b"web1\n", 0, "DONE", []),
    ],
)
def test_a_person_at_a_terminal(
    typed: bytes | None, code: int, said: str, words: list[str], tmp_path: Path
) -> None:
    """Where a task of an event loop asks, whose signals are only noted, as everywhere."""
    script = tmp_path / "asks.py"
    script.write_text(ASKS)
    pid, terminal = pty.fork()
    if not pid:
        # Whoever runs the tests in the background may have had them ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, str(script), *words])
    heard, asked, last = b"", False, time.monotonic() + PATIENCE
    try:
        while select.select([terminal], [], [], max(0.0, last - time.monotonic()))[0]:
            try:
                heard += os.read(terminal, 4096)
            except OSError:
                break  # it has ended
            if b"to go on:" in heard and not asked:  # in the very instant, and once
                asked = True
                os.write(terminal, typed or b"")
        else:
            os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code, heard
    finally:
        os.close(terminal)
    assert said.encode() in heard
    assert b"Traceback" not in heard
    assert asked == (typed is not None)
    assert "passphrase" not in words or b"web1" not in heard  # it is not shown
    assert (b"DONE" in heard) == (code == 0)


def test_a_signal_between_the_question_and_the_reading_of_its_answer() -> None:
    """One that Python has seen, but the system call that waits has not."""
    here, there = os.pipe()
    with _woken() as woken:
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            signal.raise_signal(signal.SIGUSR1)
            assert select.select([here, *woken], [], [], PATIENCE)[0] == woken
        finally:
            signal.signal(signal.SIGUSR1, before)
            os.close(here)
            os.close(there)
