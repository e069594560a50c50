"""``site replica``: the disk files that a site keeps of machines, and taking them over."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.confirming import confirmed
from pipeline.cli.console import PLACE, emit, json_option, run_async
from pipeline.cli.moment import both_times

if TYPE_CHECKING:
    from pipeline.site.replicas import Given
    from pipeline.site.standing import Standing

_WORKERS = 8
_STATES = {
    "comparing": "being compared: NO recovery point now",
    "changing": "being changed: NO recovery point now",
    "whole": "whole",
    "giving": "being given to {to}",
    "given": "given to {to}",
}
_CONFIG = click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))


@click.group()
def replica() -> None:
    """Disk files that follow a machine's log, so that a failover to this site copies nothing.

    They are kept by 'backstay site CONFIG', as its 'replicas' say, each with a key of its own.
    """


@replica.command("list")
@_CONFIG
@json_option
def list_(config: str, as_json: bool) -> None:
    """Show each replica: at which point it is, or that it is at none now, and what is wrong."""
    from pipeline.site.config import load_site
    from pipeline.site.standing import standing
    from stages.system import this_machine

    found = standing(this_machine(_WORKERS).files, load_site(config))
    text = "\n".join(line for each in found for line in _lines(each)) or "no replicas"
    emit(as_json, {"replicas": [_fields(each) for each in found]}, text)


@replica.command()
@_CONFIG
@click.argument("machine")
@click.option("--to", type=PLACE, required=True, metavar="DIR", help="Folder for the disks.")
@json_option
def promote(config: str, machine: str, to: str, as_json: bool) -> None:
    """Make the replica of MACHINE its disks: at the point of its failover, as files in DIR.

    First fail MACHINE over ('failover unplanned'). DIR is on the file system of the replica:
    nothing is copied, nothing is overwritten. The site follows MACHINE no more.
    """
    from pipeline.site.config import load_site
    from pipeline.site.replicas import promote as perform
    from stages.system import this_machine

    # What is under way is finished or goes on later: the same command, given again.
    found: Given = run_async(
        perform, this_machine(_WORKERS), load_site(config), machine, str(Path(to).resolve())
    )
    lines = [f"{machine} is at point #{found.seq}, {both_times(_time(found.stamp))}"]
    lines += [f"  {path}" for path in found.paths]
    lines += [f"note: {text}" for text in found.notes]
    fields = {
        "machine": machine,
        "point": found.seq,
        "time": _time(found.stamp).isoformat(),
        "written": found.written,
        "disks": list(found.paths),
        "notes": list(found.notes),
    }
    emit(as_json, fields, "\n".join(lines))


@replica.command()
@_CONFIG
@click.argument("machine")
@click.option("--confirm", metavar="MACHINE", help="Go on without asking.")
@json_option
def drop(config: str, machine: str, confirm: str | None, as_json: bool) -> None:
    """Remove the replica's files of MACHINE, or forget that they were given away.

    If the configuration still names it, the site begins it anew.
    """
    from pipeline.site.config import load_site
    from pipeline.site.replicas import drop as perform
    from stages.system import this_machine

    confirmed("drop replica", machine, confirm, hint=f"add --confirm {machine}")
    run_async(perform, this_machine(_WORKERS), load_site(config), machine)
    emit(as_json, {"machine": machine, "dropped": True}, f"the replica of {machine} is gone")


def _time(stamp: int) -> datetime:
    return datetime.fromtimestamp(stamp / 1e6, UTC)


def _fields(found: Standing) -> dict[str, Any]:
    kept = found.record
    at = kept.at if kept is not None else None
    whole = kept is not None and kept.status.value in ("whole", "giving", "given")
    return {
        "machine": found.machine,
        "folder": found.folder,
        "status": "none" if kept is None else kept.status.value,
        "recovery_point": whole,
        "point": at.seq if at is not None and whole else None,
        "time": _time(at.stamp).isoformat() if at is not None and whole else None,
        "towards": kept.towards.seq if kept is not None and kept.towards is not None else None,
        "to": (kept.to or None) if kept is not None else None,
        "trouble": found.trouble or None,
        "notes": list(found.notes),
    }


def _lines(found: Standing) -> list[str]:
    kept = found.record
    if kept is None:
        lines = [f"{found.machine}: nothing yet"]
    else:
        state = _STATES[kept.status.value].format(to=kept.to)
        where = ""
        if kept.towards is not None:
            where = f", on its way to #{kept.towards.seq}"
        elif kept.at is not None:
            where = f", at point #{kept.at.seq}, {both_times(_time(kept.at.stamp))}"
        lines = [f"{found.machine}: {state}{where}"]
    if found.trouble:
        lines.append(f"  {found.trouble}")
    lines += [f"  note: {text}" for text in found.notes]
    return lines
