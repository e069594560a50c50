"""Snapshot hooks: commands of the configuration that hold a disk still while it is read."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import TracebackType

import trio

from pipeline.config.model import Disk, Snapshot
from stages.errors import BackstayError, SourceBusy

_OUTPUT = 2000  # bytes kept of what a hook prints
_LISTEN = 1.0  # seconds for the rest of it, once the hook has ended
_GRACE = 5.0  # seconds between asking a hook to end and making it
_NOT_READ = "nothing was read; try the command by hand, as the user that runs Backstay"
_FROZEN = "the disk may still be held: free it by hand before anything else"


@asynccontextmanager
async def held_still(machine: str, disks: Sequence[tuple[str, Disk]]) -> AsyncIterator[bool]:
    """Run all ``pre`` hooks, and afterwards, whatever happens, the ``post`` hooks of those run.

    In the opposite order, and of one that failed too: it may have got half-way. Yields True if
    every disk has a hook. Raises ``SourceBusy`` if a hook fails or hangs; where something else has
    failed before, that is raised, with the hook's failure in its hint.
    """
    async with AsyncExitStack() as stack:
        for name, disk in disks:
            if disk.snapshot is not None:
                stack.push_async_exit(partial(_post, machine, name, disk, disk.snapshot))
                await _run(disk.snapshot.pre, machine, name, disk, disk.snapshot.timeout, _NOT_READ)
        yield all(disk.snapshot is not None for _, disk in disks)


async def _post(
    machine: str,
    name: str,
    disk: Disk,
    snapshot: Snapshot,
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _trace: TracebackType | None,
) -> None:
    # Thaw always runs, also when the scan was cancelled; its own timeout bounds the shield.
    with trio.CancelScope(shield=True):
        try:
            await _run(snapshot.post, machine, name, disk, snapshot.timeout, _FROZEN)
        except SourceBusy as failed:
            if error is None:
                raise
            if isinstance(error, BackstayError):
                error.hint = "; ".join(filter(None, (error.hint, str(failed), failed.hint)))


async def _run(
    command: str, machine: str, name: str, disk: Disk, timeout: float, hint: str
) -> None:
    subject = f"{machine}/{name}: {command}"
    environment = os.environ | {
        "BACKSTAY_MACHINE": machine,
        "BACKSTAY_DISK": name,
        "BACKSTAY_PATH": disk.path,
    }
    try:
        with trio.fail_after(timeout):
            code, said = await ended([command], environment)
    except trio.TooSlowError:
        raise SourceBusy(
            f"the snapshot hook took longer than {timeout:g} s and was ended",
            operation="snapshot",
            subject=subject,
            hint=hint,
        ) from None
    except OSError as error:
        raise SourceBusy(
            f"the snapshot hook cannot be run: {error.strerror}",
            operation="snapshot",
            subject=subject,
            hint=hint,
        ) from None
    if code:
        raise SourceBusy(
            f"the snapshot hook failed with exit code {code}: {said}",
            operation="snapshot",
            subject=subject,
            hint=hint,
        )


async def ended(
    command: Sequence[str], environment: Mapping[str, str], given: bytes = b""
) -> tuple[int, str]:
    """Run a hook to its end: its exit code, and the last of what it printed.

    ``given`` is what it finds on standard input. Raises ``OSError`` if it cannot be run; cancelled,
    it is ended.

    It has a session of its own: Ctrl-C is not meant for it, and what it started ends with it when
    it takes too long. What it leaves running on purpose may keep its output open; nobody waits.
    """
    process = await trio.lowlevel.open_process(
        list(command),
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

    async def tell(into: trio.abc.SendStream) -> None:
        with suppress(trio.BrokenResourceError):  # it need not read
            async with into:
                await into.send_all(given)

    try:
        async with trio.open_nursery() as nursery:
            if process.stdout is not None:
                nursery.start_soon(listen, process.stdout)
            if process.stdin is not None:
                nursery.start_soon(tell, process.stdin)
            await process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _LISTEN
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
    return process.returncode or 0, said.decode(errors="replace").strip()


async def _end(process: trio.Process) -> None:
    """Ask the hook and what it started to end; then make them."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        os.killpg(process.pid, signal_number)
        with trio.move_on_after(_GRACE):
            await process.wait()
