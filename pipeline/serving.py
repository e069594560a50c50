"""Serving a point over NBD: read-only, or with what is written kept in copy-on-write files.

Beside the overlays of a machine lies a note of the point they belong to, so that the same command
goes on with them although newer points have arrived. Hydration never harms a guest: what stops it
is said, the disks stay as they are.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import trio

from pipeline.leasing import Reader, leased
from pipeline.recovery import SERVING, Access
from stages import durable
from stages.errors import FULL, BackstayError, NoSpace, TargetError
from stages.nbd.device import Device
from stages.nbd.handler import DeviceHandler
from stages.nbd.listening import parse_address
from stages.nbd.server import NbdServer
from stages.recover.device import PointDevice
from stages.recover.opened import Group
from stages.recover.overlay import Overlay
from stages.recover.overlay_file import MAP_SUFFIX
from stages.recover.pointmap import PointMap
from stages.recover.points import choose
from stages.stage import crew

_SUFFIX, _NOTE_SUFFIX = ".overlay", ".point"
_MAX_NOTE = 4096
_PAUSES = (1.0, 2.0, 4.0, 8.0, 10.0)  # seconds before hydration tries again; then the last

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What to serve and where. ``only``: names of disks, none for all; ``writable``: a folder.

    ``by``: who reads, for the lease that holds the point meanwhile; without it there is none.
    """

    machine: str
    at: int | str | None
    listen: str
    only: tuple[str, ...]
    writable: str | None
    hydrate: bool
    by: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """What is being served: URIs by the names of the disks."""

    point: PointMap
    uris: dict[str, str]
    notes: tuple[str, ...]


async def serve_point(
    access: Access,
    order: ExportOrder,
    ready: Callable[[Served], None],
    say: Say,
    *,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` hears of it when connections are accepted.

    ``before_end`` is called when it is to end, while clients are still served; it bounds itself.
    """
    address = parse_address(order.listen)
    early: list[str] = []  # for the notes beside what is served
    served = False

    def tell(note: str) -> None:
        say(f"note: {note}") if served else early.append(note)

    async with access.vault(patience=SERVING) as vault, AsyncExitStack() as stack:
        group = await vault.find(order.machine)
        at = order.at
        if at is None and order.writable is not None:
            at = _noted(access, group, order.writable)
        choice = await choose(group, order.machine, at)
        point = await PointMap.build(group, access.ports.files, choice.point.seq)
        stack.callback(point.close)
        if order.by:
            link = choice.point.digest
            reader = Reader(access.ports, access.key, group, point.seq, link, order.by)
            await stack.enter_async_context(leased(vault.store, reader, tell))
        names = [point.disk(name).name for name in dict.fromkeys(order.only)]
        async with crew() as nursery:  # it is cancelled before what is on the stack is closed
            overlays: list[Overlay] = []
            devices: list[Device] = []
            for name in names or [disk.name for disk in point.machine.disks]:
                offload = access.ports.offload
                base = PointDevice(point, point.disk(name), offload, nursery=nursery)
                if order.writable is None:
                    devices.append(base)
                else:
                    opened = _overlay(access, point, base, order.writable)
                    overlays.append(await stack.enter_async_context(opened))
                    devices.append(overlays[-1])
            server = NbdServer([DeviceHandler(device) for device in devices])
            await nursery.start(_stop_on_signal, server.stop, before_end)
            for overlay in overlays if order.hydrate else ():
                nursery.start_soon(_hydrate, access, overlay, say)
            async with trio.open_nursery() as serving:
                bound = await serving.start(server.run, address)
                uris = {device.info.name: bound.uri(device.info.name) for device in devices}
                notes = (*choice.notes, *early, *vault.problems, *group.log.ignored)
                served = True
                ready(Served(point, uris, tuple(dict.fromkeys(notes))))
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _overlay(
    access: Access, point: PointMap, base: PointDevice, folder: str
) -> AsyncIterator[Overlay]:
    """The copy-on-write files of one disk, opened or made. Raises ``TargetError``, ``NoSpace``."""
    name = base.info.name
    scope = point.group.scope
    identity = f"{scope.vault.hex()}/{scope.group.hex()}/{point.seq}/{name}"
    path = f"{folder}/{point.machine.name}-{name}{_SUFFIX}"
    try:
        await access.ports.offload.run(partial(_note, access, point, folder))
        overlay = await Overlay.open(base, access.ports, path, identity=identity)
    except OSError as error:
        kind: type[BackstayError] = NoSpace if error.errno in FULL else TargetError
        raise kind(
            error.strerror or str(error),
            operation="open overlay",
            subject=path,
            hint="give a folder that can be written to and has room",
        ) from None
    try:
        yield overlay
    finally:
        await overlay.close()


def _note(access: Access, point: PointMap, folder: str) -> None:
    """Remember which point the overlays in a folder belong to, before the first one is made."""
    files, machine = access.ports.files, point.machine.name
    durable.make_dirs(files, folder)
    if not any(_is_overlay(name, machine) for name in files.listdir(folder)):
        fields = {"group": point.group.scope.group.hex(), "seq": point.seq}
        token = access.ports.entropy.token(8).hex()
        path = f"{folder}/{machine}{_NOTE_SUFFIX}"
        durable.replace(files, path, json.dumps(fields).encode(), token=token)


def _is_overlay(name: str, machine: str) -> bool:
    return name.startswith(f"{machine}-") and name.endswith(f"{_SUFFIX}{MAP_SUFFIX}")


def _noted(access: Access, group: Group, folder: str) -> int | None:
    """The point of the overlays in a folder, if there are any of this group."""
    files = access.ports.files
    for name in files.listdir(folder):
        if not name.endswith(_NOTE_SUFFIX):
            continue
        with suppress(OSError, ValueError, KeyError, TypeError):
            fields = json.loads(files.read(f"{folder}/{name}", _MAX_NOTE))
            if fields["group"] == group.scope.group.hex():
                return int(fields["seq"])
    return None


async def _hydrate(access: Access, overlay: Overlay, say: Say) -> None:
    """Copy all of a point behind the guest; trouble with the vault is waited out."""
    name = overlay.info.name
    tries = 0
    while True:
        before = overlay.statistics().present
        try:
            await overlay.hydrate()
        except (BackstayError, OSError) as error:
            if not (isinstance(error, BackstayError) and error.recoverable):
                say(f"{name}: hydration has stopped: {error}; the vault is still needed")
                return
            if not tries:
                say(f"{name}: hydration waits: {error}")
        else:
            say(f"{name}: hydrated, the vault is not needed any more")
            return
        tries = 0 if overlay.statistics().present > before else tries + 1
        await access.ports.clock.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])


async def _stop_on_signal(
    stop: Callable[[], None],
    before: Callable[[], Awaitable[None]] | None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            break
        try:
            if before is not None:
                await before()
        finally:
            stop()
