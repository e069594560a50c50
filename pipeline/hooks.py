"""Snapshot hooks: commands of the configuration that hold disks, or applications, still."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import trio

from pipeline.commands import run_command
from pipeline.config.model import Disk, Policy
from stages.errors import BackstayError, SourceBusy

_NOT_READ = "nothing was read; try the command by hand, as the user that runs Backstay"
_FROZEN = "the disk may still be held: free it by hand before anything else"


@dataclass(frozen=True, slots=True)
class Hook:
    """A pair of commands, and what they are told. ``subject`` is whom errors name."""

    pre: str
    post: str
    timeout: float
    subject: str
    environment: Mapping[str, str]


def disk_hooks(machine: str, disks: Sequence[tuple[str, Disk]]) -> list[Hook]:
    """Those of the disks that have any."""
    return [
        Hook(
            disk.snapshot.pre,
            disk.snapshot.post,
            disk.snapshot.timeout,
            f"{machine}/{name}",
            {"BACKSTAY_MACHINE": machine, "BACKSTAY_DISK": name, "BACKSTAY_PATH": disk.path},
        )
        for name, disk in disks
        if disk.snapshot is not None
    ]


def machine_hooks(machine: str, policy: Policy) -> list[Hook]:
    """Those of its policy, for the machine as a whole."""
    app = policy.app_consistent
    if app is None:
        return []
    return [Hook(app.pre, app.post, app.timeout, machine, {"BACKSTAY_MACHINE": machine})]


@asynccontextmanager
async def held_still(machine: str, disks: Sequence[tuple[str, Disk]]) -> AsyncIterator[bool]:
    """``hooks_held`` with those of the disks. Yields True if every disk has a hook."""
    async with hooks_held(disk_hooks(machine, disks)):
        yield all(disk.snapshot is not None for _, disk in disks)


@asynccontextmanager
async def hooks_held(hooks: Sequence[Hook]) -> AsyncIterator[None]:
    """Run all ``pre`` hooks, and afterwards, whatever happens, the ``post`` hooks of those run.

    In the opposite order, and of one that failed too: it may have got half-way. Raises
    ``SourceBusy`` if a hook fails or hangs; where something else has failed before, that is raised,
    with the hook's failure in its hint.
    """
    async with AsyncExitStack() as stack:
        for hook in hooks:
            stack.push_async_exit(partial(_post, hook))
            await _run(hook.pre, hook, _NOT_READ)
        yield


async def _post(
    hook: Hook,
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _trace: TracebackType | None,
) -> None:
    # Thaw always runs, also when the scan was cancelled; its own timeout bounds the shield.
    with trio.CancelScope(shield=True):
        try:
            await _run(hook.post, hook, _FROZEN)
        except SourceBusy as failed:
            if error is None:
                raise
            if isinstance(error, BackstayError):
                error.hint = "; ".join(filter(None, (error.hint, str(failed), failed.hint)))


async def _run(command: str, hook: Hook, hint: str) -> None:
    subject = f"{hook.subject}: {command}"
    try:
        with trio.fail_after(hook.timeout):
            code, said = await run_command(command, os.environ | hook.environment)
    except trio.TooSlowError:
        raise SourceBusy(
            f"the snapshot hook took longer than {hook.timeout:g} s and was ended",
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
