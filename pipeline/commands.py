"""Commands of the configuration: run to their end, with what they print bounded."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping

import trio

_OUTPUT = 2000  # bytes kept of what a command prints, the last ones
_LISTEN = 1.0  # seconds for the rest of it, once the command has ended
_GRACE = 5.0  # seconds between asking a command to end and making it


async def run_command(
    command: str, environment: Mapping[str, str], given: bytes = b""
) -> tuple[int, str]:
    """Run an executable to its end: its exit code, and the last of what it printed.

    ``given`` is its standard input. It has a session of its own: Ctrl-C is not meant for it, and
    what it started ends with it when this is cancelled. What it leaves running on purpose may keep
    its output open; nobody waits. ``OSError`` if it cannot be run.
    """
    process = await trio.lowlevel.open_process(
        [command],
        env=environment,
        stdin=subprocess.PIPE if given else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    said = bytearray()

    async def listen(output: trio.abc.ReceiveStream) -> None:
        async with output:
            while chunk := await output.receive_some():
                said.extend(chunk)
                del said[:-_OUTPUT]

    async def feed(stdin: trio.abc.SendStream) -> None:
        async with stdin:
            try:
                await stdin.send_all(given)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it does not want to know

    try:
        async with trio.open_nursery() as nursery:
            if process.stdout is not None:
                nursery.start_soon(listen, process.stdout)
            if process.stdin is not None:
                nursery.start_soon(feed, process.stdin)
            await process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _LISTEN
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
    return process.returncode or 0, said.decode(errors="replace").strip()


async def _end(process: trio.Process) -> None:
    """Ask the command and what it started to end; then make them."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        os.killpg(process.pid, signal_number)
        with trio.move_on_after(_GRACE):
            await process.wait()
