"""``hold``, ``release``, ``holds``: points that stay whatever their age."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.confirming import confirmed
from pipeline.cli.console import emit, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from pipeline.cli.shown import point_fields
from stages.errors import UsageError

if TYPE_CHECKING:
    from stages.vault.floors import Hold
    from stages.vault.leases import Running


@click.command()
@click.argument("machine")
@click.argument("point")
@access_options
@click.option("--note", default="", help="Why, in clear.")
@click.option("--dry-run", is_flag=True, help="Only say which point it would be.")
@json_option
def hold(machine: str, point: str, note: str, dry_run: bool, as_json: bool, **where: Any) -> None:
    """Keep POINT of MACHINE ('#12', or a time: the last point at or before it) whatever its age."""
    from pipeline.cli.failover_shown import whoever
    from pipeline.keeping import hold_point

    access = make_access(**where)
    chosen, remark = parse_at(point)
    who = whoever()
    work = partial(
        hold_point, access, machine, chosen, f"{who.by} on {who.host}"[:255], note, dry_run=dry_run
    )
    held = run_async(work)
    notes = [*filter(None, [remark]), *held.notes]
    for text in () if as_json else notes:
        say(f"note: {text}")
    said = "is held already" if held.again else ("would be held" if dry_run else "is held")
    emit(
        as_json,
        {
            "machine": machine,
            "group": held.group,
            "point": point_fields(held.point),
            "dry_run": dry_run,
            "held_before": held.again,
            "notes": notes,
        },
        f"{machine}: point #{held.point.seq}, {both_times(held.point.time)}, {said}",
    )


@click.command()
@click.argument("machine")
@click.argument("point")
@access_options
@click.option("--confirm", metavar="MACHINE", help="Go on without asking.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def release(
    machine: str, point: str, confirm: str | None, dry_run: bool, as_json: bool, **where: Any
) -> None:
    """Give the held POINT ('#12') of MACHINE to retention again: if it is old, it goes for good."""
    from pipeline.keeping import release_point

    seq, _ = parse_at(point)
    if not isinstance(seq, int):
        raise UsageError(
            "a held point goes by its number",
            operation="release",
            subject=point,
            hint="'backstay holds' lists them",
        )
    access = make_access(**where)
    ask = partial(_released, machine, seq, confirm)
    group, _ = run_async(partial(release_point, access, machine, seq, ask, dry_run=dry_run))
    said = "would be released" if dry_run else "is released"
    emit(
        as_json,
        {"machine": machine, "group": group, "point": seq, "dry_run": dry_run},
        f"{machine}: point #{seq} {said}: retention decides about it from now on",
    )


def _released(machine: str, seq: int, confirm: str | None, hold: Hold | None) -> None:
    if hold is not None:
        say(f"point #{seq} of {machine} is {_hold_text(hold)}")
    say("released, it goes with the next runs of the keeper if it is old, and cannot be had again")
    confirmed("release", machine, confirm, hint=f"--confirm {machine}")


@click.command()
@click.argument("machine")
@access_options
@json_option
def holds(machine: str, as_json: bool, **where: Any) -> None:
    """List the points of MACHINE that are held, and those that somebody is reading."""
    from pipeline.keeping import list_holds

    access = make_access(**where)
    group, found, leases = run_async(list_holds, access, machine)
    lines = [f"{'#' + str(each.seq):>8}  {_hold_text(each)}" for each in found.holds]
    lines += [f"{'#' + str(each.lease.seq):>8}  {_lease_text(each)}" for each in leases.running]
    lines += [f"note: {note}" for note in (*found.notes, *leases.notes)]
    lines += [f"problem: {problem}" for problem in (*found.problems, *leases.problems)]
    fields = {
        "machine": machine,
        "group": group,
        "holds": [
            {
                "point": each.seq,
                "since": _when(each).isoformat(),
                "by": each.by,
                "note": each.note,
            }
            for each in found.holds
        ],
        "leases": [
            {
                "point": each.lease.seq,
                "since": _time(each.lease.stamp).isoformat(),
                "until": _time(each.until).isoformat(),
                "by": each.lease.by,
            }
            for each in leases.running
        ],
        "notes": [*found.notes, *leases.notes],
        "problems": [*found.problems, *leases.problems],
    }
    emit(as_json, fields, "\n".join(lines or ["no point is held"]))


def _when(hold: Hold) -> datetime:
    return _time(hold.stamp)


def _time(micro: int) -> datetime:
    return datetime.fromtimestamp(micro / 1e6, UTC)


def _lease_text(found: Running) -> str:
    return f"is being read, held until {both_times(_time(found.until))}: {found.lease.by}"


def _hold_text(hold: Hold) -> str:
    return f"held since {both_times(_when(hold))} by {hold.by}" + (
        f": {hold.note}" if hold.note else ""
    )
