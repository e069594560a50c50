"""``points``, ``verify``, ``rescue``: they take a vault and a key, nothing else."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.console import emit, end_with, human, json_option, run_async
from pipeline.cli.moment import both_times, parse_at
from pipeline.cli.progress import progress_bar
from pipeline.cli.shown import LISTED, extent_fields, extent_text, grade, point_fields
from stages.errors import Damage

if TYPE_CHECKING:
    from pipeline.recovery import RescueEntry

_MOST_LISTED = 100_000


@click.command()
@click.argument("machine")
@access_options
@click.option(
    "--count",
    default=20,
    show_default=True,
    type=click.IntRange(1, _MOST_LISTED),
    help="How many, newest first.",
)
@click.option("--all", "all_points", is_flag=True, help="Also points that are not consistent.")
@json_option
def points(machine: str, count: int, all_points: bool, as_json: bool, **where: Any) -> None:
    """List the recovery points of MACHINE, newest first."""
    from pipeline.recovery import list_points

    access = make_access(**where)
    found = run_async(list_points, access, machine, count, all_points)
    lines = [f"{'POINT':>8}  {'TIME':58} {'CLASS':8} STORED"]
    lines += [
        f"{'#' + str(p.seq):>8}  {both_times(p.time):58} {grade(p):8} {human(p.stored)}"
        for p in found.points
    ]
    if not found.points:
        lines = ["no consistent points; --all shows the others" if found.tail else "no points yet"]
    lines += [f"note: {note}" for note in found.notes]
    fields = {
        "machine": found.machine,
        "group": found.group,
        "newest": found.tail,
        "points": [point_fields(p) for p in found.points],
        "notes": list(found.notes),
    }
    emit(as_json, fields, "\n".join(lines))


@click.command()
@click.argument("machine")
@access_options
@click.option("--at", "at", help="Point ('#12') or time; default: the newest consistent point.")
@json_option
def verify(machine: str, at: str | None, as_json: bool, **where: Any) -> None:
    """Prove that a point of MACHINE can be restored: signatures, log, every frame opened."""
    from pipeline.recovery import verify_point

    access = make_access(**where)
    chosen, remark = parse_at(at)
    with progress_bar() as watch:
        choice, found = run_async(verify_point, access, machine, chosen, watch)
    notes = [*filter(None, [remark]), *choice.notes]
    lines = [f"point #{found.seq} of {machine}, {both_times(choice.point.time)}"]
    lines += [f"  note: {note}" for note in notes]
    lines += [f"  {problem.key}: {problem.reason}" for problem in found.problems[:LISTED]]
    lines += [f"  {extent_text(extent)}" for extent in found.damage[:LISTED]]
    verdict = "whole: it can be restored" if found.whole else "DAMAGED"
    lines.append(
        f"{verdict}; {found.commits} commits, {found.frames} frames, "
        f"{human(found.stored_bytes)} opened"
    )
    fields = {
        "machine": machine,
        "point": point_fields(choice.point),
        "whole": found.whole,
        "commits": found.commits,
        "frames": found.frames,
        "stored_bytes": found.stored_bytes,
        "problems": [
            {"object": p.key, "reason": p.reason, "fatal": p.fatal} for p in found.problems
        ],
        "damage": [extent_fields(extent) for extent in found.damage],
        "notes": notes,
    }
    emit(as_json, fields, "\n".join(lines))
    if not found.whole:
        end_with(Damage.exit_code)


@click.command()
@access_options
@json_option
def rescue(as_json: bool, **where: Any) -> None:
    """Show every machine in a vault, its newest consistent point and the next command to give."""
    from pipeline.recovery import rescue_entries

    access = make_access(**where)
    entries, problems = run_async(rescue_entries, access)
    lines, rows = [], []
    seen: set[str] = set()
    for entry in entries:
        command = _next_command(entry, where, newest=entry.machine not in seen)
        seen.add(entry.machine)
        lines.append(f"{entry.machine}  (group {entry.group})")
        lines += [f"  disk {name}: {human(size)}" for name, size in entry.disks]
        if entry.point is not None:
            lines.append(
                f"  newest consistent point: #{entry.point.seq}, {both_times(entry.point.time)}"
            )
            lines += [f"  note: {entry.note}"] if entry.note else []
            lines.append(f"  next: {command}")
        else:
            lines.append(f"  {entry.note}")
        rows.append(
            {
                "machine": entry.machine,
                "group": entry.group,
                "disks": dict(entry.disks),
                "point": entry.point and point_fields(entry.point),
                "next": command if entry.point is not None else None,
                "note": entry.note,
            }
        )
    lines += [f"problem: {problem}" for problem in problems]
    emit(as_json, {"machines": rows, "problems": problems}, "\n".join(lines or ["empty vault"]))


def _next_command(entry: RescueEntry, where: dict[str, Any], *, newest: bool) -> str:
    """What restores a machine, to be typed as it is; an older group goes by its id."""
    name = entry.machine if newest else entry.group
    words = ["backstay", "restore", name, "--vault", where["url"], "--key", where["key"]]
    if where["trust"]:
        words += ["--trust", where["trust"]]
    return shlex.join([*words, "--to", f"./restored-{name}"])
