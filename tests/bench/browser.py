"""A real browser without a window, spoken to through two pipes by its own debugging protocol."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = "chromium-headless-shell"
_PATIENCE = 120.0  # seconds for an answer: nothing is timed, it only must not hang
_END = b"\0"
_TROUBLE = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


class Tab:
    """One page: what it asked for, what it complained of, and what it looks like."""

    def __init__(self, reading: int, writing: int):
        self._reading, self._writing = reading, writing
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requested: list[str] = []
        self.trouble: list[str] = []
        self.loaded = False
        made = self.call("Target.createTarget", url="about:blank")
        joined = self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = joined["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; what happens meanwhile is noted."""
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": words}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._writing, json.dumps(asked).encode() + _END)
        while True:
            said = self._message()
            if said.get("id") == self._number:
                assert "error" not in said, said
                found: dict[str, Any] = said["result"]
                return found
            self._note(said)

    def open(self, page: Path, width: int) -> None:
        """Load a page into a window so wide."""
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.loaded = False
        self.call("Page.navigate", url=page.as_uri())
        while not self.loaded:
            self._note(self._message())

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _note(self, said: dict[str, Any]) -> None:
        method, words = said.get("method", ""), said.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(words["request"]["url"])
        elif method in _TROUBLE:
            self.trouble.append(json.dumps(words))
        elif method == "Page.loadEventFired":
            self.loaded = True

    def _message(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE
        while _END not in self._buffer:
            ready, _, _ = select.select([self._reading], [], [], until - time.monotonic())
            assert ready, "the browser says nothing"
            data = os.read(self._reading, 1 << 16)
            assert data, "the browser ended"
            self._buffer += data
        first, self._buffer = self._buffer.split(_END, 1)
        found: dict[str, Any] = json.loads(first)
        return found


@contextmanager
def tab(folder: Path) -> Iterator[Tab]:
    """A browser with a profile in ``folder``, ended with the block."""
    theirs_in, mine_out = os.pipe()
    mine_in, theirs_out = os.pipe()
    script = f'exec {PROGRAM} "$@" 3<&{theirs_in} 4>&{theirs_out}'
    how = ("--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}")
    process = subprocess.Popen(
        ("bash", "-c", script, "bash", *how),
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Tab(mine_in, mine_out)
    finally:
        process.kill()
        process.wait()
        os.close(mine_in)
        os.close(mine_out)
