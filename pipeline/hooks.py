"""Snapshot hooks: commands of the configuration that hold a disk still while it is read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from pipeline.config.model import Disk, Snapshot
from stages.errors import SourceBusy

_OUTPUT = 2000


@asynccontextmanager
async def held_still(machine: str, disks: Sequence[tuple[str, Disk]]) -> AsyncIterator[bool]:
    """Run all ``pre`` hooks, and afterwards, whatever happens, the ``post`` hooks of those run.

    Yields True if every disk has a hook. Raises ``SourceBusy`` if a hook fails or hangs.
    """
    async with AsyncExitStack() as stack:
        for name, disk in disks:
            if disk.snapshot is not None:
                stack.push_async_callback(_post, machine, name, disk, disk.snapshot)
                await _run(disk.snapshot.pre, machine, name, disk, disk.snapshot.timeout)
        yield all(disk.snapshot is not None for _, disk in disks)


async def _post(machine: str, name: str, disk: Disk, snapshot: Snapshot) -> None:
    # Thaw always runs, also when the scan was cancelled; its own timeout bounds the shield.
    with trio.CancelScope(shield=True):
        await _run(snapshot.post, machine, name, disk, snapshot.timeout)


async def _run(command: str, machine: str, name: str, disk: Disk, timeout: float) -> None:
    subject = f"{machine}/{name}: {command}"
    environment = os.environ | {
        "BACKSTAY_MACHINE": machine,
        "BACKSTAY_DISK": name,
        "BACKSTAY_PATH": disk.path,
    }
    try:
        with trio.fail_after(timeout):
            done = await trio.run_process(
                [command],
                env=environment,
                stdin=b"",
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
    except trio.TooSlowError:
        raise SourceBusy(
            f"the snapshot hook took longer than {timeout:g} s and was ended",
            operation="snapshot",
            subject=subject,
        ) from None
    except OSError as error:
        raise SourceBusy(
            f"the snapshot hook cannot be run: {error.strerror}",
            operation="snapshot",
            subject=subject,
        ) from None
    if done.returncode:
        said = done.stdout[-_OUTPUT:].decode(errors="replace").strip()
        raise SourceBusy(
            f"the snapshot hook failed with exit code {done.returncode}: {said}",
            operation="snapshot",
            subject=subject,
        )
