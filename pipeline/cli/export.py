"""``export``: any point as block devices over NBD, in about a second whatever its size."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.console import emit, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from stages.errors import UsageError

if TYPE_CHECKING:
    from pipeline.recovery import Access
    from stages.nbd.device import Device
    from stages.recover.pointmap import PointMap


@click.command()
@click.argument("machine")
@access_options
@click.option("--at", "at", help="Point ('#12') or time; default: the newest consistent point.")
@click.option("--listen", required=True, help="unix:PATH, or 127.0.0.1:PORT.")
@click.option("--disk", "only", multiple=True, help="Only this disk (repeatable).")
@click.option("--writable", metavar="DIR", help="Keep writes in copy-on-write files in DIR.")
@click.option("--hydrate", is_flag=True, help="With --writable: copy the point behind, all of it.")
@json_option
def export(
    machine: str,
    at: str | None,
    listen: str,
    only: tuple[str, ...],
    writable: str | None,
    hydrate: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Serve the disks of a point of MACHINE over NBD until interrupted.

    Each disk is an export by its name. Read-only, unless --writable gives a folder for what is
    written; the vault is never changed. Give the same command again to go on with those writes.
    """
    if hydrate and not writable:
        raise UsageError("--hydrate takes --writable", operation="export", subject=machine)
    chosen, remark = parse_at(at)
    if remark:
        say(remark)
    access = make_access(**where)

    def ready(point: PointMap, uris: dict[str, str]) -> None:
        moment = both_times(point.time)
        lines = [f"point #{point.seq} of {machine}, {moment}"]
        lines += [f"{name}: {uri}" for name, uri in uris.items()]
        emit(
            as_json,
            {
                "machine": machine,
                "seq": point.seq,
                "stamp": point.header.stamp,
                "exports": uris,
                "pid": os.getpid(),
            },
            "\n".join(lines),
        )

    run_async(
        partial(
            _serve,
            access,
            machine,
            chosen,
            listen=listen,
            only=only,
            writable=writable,
            hydrate=hydrate,
            ready=ready,
        )
    )


async def _serve(
    access: Access,
    machine: str,
    at: int | str | None,
    *,
    listen: str,
    only: tuple[str, ...],
    writable: str | None,
    hydrate: bool,
    ready: Callable[[PointMap, dict[str, str]], None],
) -> None:
    import trio

    from stages.nbd.handler import DeviceHandler
    from stages.nbd.listening import parse_address
    from stages.nbd.server import NbdServer
    from stages.recover.pointmap import PointMap
    from stages.recover.points import choose
    from stages.stage import crew

    address = parse_address(listen)
    async with access.vault() as vault, AsyncExitStack() as stack:
        group = await vault.find(machine)
        choice = await choose(group, machine, at)
        for note in choice.notes:
            say(f"note: {note}")
        point = await PointMap.build(group, access.ports.files, choice.point.seq)
        stack.callback(point.close)
        devices: dict[str, Device] = {}
        behind: list[Callable[[], Awaitable[None]]] = []
        for disk in point.machine.disks:
            if not only or disk.name in only:
                opened = _device(access, point, disk.name, writable)
                device, follow = await stack.enter_async_context(opened)
                devices[disk.name] = device
                behind.append(follow)
        for name in only:
            point.disk(name)
        server = NbdServer([DeviceHandler(device) for device in devices.values()])
        async with crew() as nursery:
            nursery.start_soon(_stop_on_signal, server.stop)
            if hydrate:
                for follow in behind:
                    nursery.start_soon(follow)
            async with trio.open_nursery() as serving:
                bound = await serving.start(server.run, address)
                ready(point, {name: bound.uri(name) for name in devices})
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _device(
    access: Access, point: PointMap, name: str, writable: str | None
) -> AsyncIterator[tuple[Device, Callable[[], Awaitable[None]]]]:
    """A disk read-only, or below an overlay; and what copies it behind."""
    from stages.durable import make_dirs
    from stages.recover.device import PointDevice
    from stages.recover.overlay import Overlay

    base = PointDevice(point, point.disk(name), access.ports.offload)
    if writable is None:
        yield base, _nothing
        return
    make_dirs(access.ports.files, writable)
    scope = point.group.scope
    identity = f"{scope.vault.hex()}/{scope.group.hex()}/{point.seq}/{name}"
    path = f"{writable}/{point.machine.name}-{name}.overlay"
    overlay = await Overlay.open(base, access.ports, path, identity=identity)
    try:
        yield overlay, overlay.hydrate
    finally:
        await overlay.close()


async def _nothing() -> None:
    """A read-only device has nothing to copy."""


async def _stop_on_signal(stop: Callable[[], None]) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop()
            return
