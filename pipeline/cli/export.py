"""``export``: any point as block devices over NBD, in about a second whatever its size."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.console import PLACE, emit, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from stages.errors import UsageError

if TYPE_CHECKING:
    from pipeline.serving import Served


@click.command()
@click.argument("machine")
@access_options
@click.option("--at", "at", help="Point ('#12') or time; default: the newest consistent point.")
@click.option("--listen", required=True, help="unix:PATH, or 127.0.0.1:PORT.")
@click.option("--disk", "only", multiple=True, help="Only this disk (repeatable).")
@click.option(
    "--writable", type=PLACE, metavar="DIR", help="Keep writes in copy-on-write files in DIR."
)
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
    written; nothing in the vault is changed. Give the same command again to go on with those
    writes: without --at it takes the point they were made on.

    Meanwhile a lease in the vault keeps retention from the point, if key and credentials allow it;
    else a note says that nothing holds it.
    """
    from pipeline.cli.failover_shown import reading
    from pipeline.serving import ExportOrder, serve_point

    if hydrate and not writable:
        raise UsageError("--hydrate takes --writable", operation="export", subject=machine)
    chosen, remark = parse_at(at)
    access = make_access(**where)

    def ready(served: Served) -> None:
        point = served.point
        notes = [*filter(None, [remark]), *served.notes]
        fields = {
            "machine": machine,
            "seq": point.seq,
            "stamp": point.header.stamp,
            "writable": writable is not None,
            "exports": served.uris,
            "notes": notes,
            "pid": os.getpid(),
        }
        lines = [f"note: {note}" for note in notes]
        lines.append(f"point #{point.seq} of {machine}, {both_times(point.time)}")
        lines += [f"{name}: {uri}" for name, uri in served.uris.items()]
        emit(as_json, fields, "\n".join(lines))

    order = ExportOrder(machine, chosen, listen, only, writable, hydrate, reading("export"))
    run_async(partial(serve_point, access, order, ready, say))
