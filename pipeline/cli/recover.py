"""``points``, ``verify``, ``restore``, ``rescue``: they take a vault and a key, nothing else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.console import emit, end_with, human, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from pipeline.cli.progress import progress_bar
from stages.errors import Damage, UsageError

if TYPE_CHECKING:
    from stages.recover.extract import DamagedExtent
    from stages.recover.points import Choice, Point
    from stages.recover.restore import Target

_LISTED = 50


@click.command()
@click.argument("machine")
@access_options
@click.option("--count", default=20, show_default=True, help="How many, newest first.")
@click.option("--all", "all_points", is_flag=True, help="Also points that are not consistent.")
@json_option
def points(machine: str, count: int, all_points: bool, as_json: bool, **where: Any) -> None:
    """List the recovery points of MACHINE, newest first."""
    from pipeline.recovery import list_points

    access = make_access(**where)
    found = run_async(list_points, access, machine, count, all_points)
    lines = [f"{'POINT':>8}  {'TIME':58} {'CLASS':8} STORED"]
    lines += [
        f"{'#' + str(p.seq):>8}  {both_times(p.time):58} {_grade(p):8} {human(p.stored)}"
        for p in found.points
    ]
    if not found.points:
        lines = ["no consistent points; --all shows the others" if found.tail else "no points yet"]
    lines += [f"note: {note}" for note in found.notes]
    fields = {
        "machine": found.machine,
        "group": found.group,
        "newest": found.tail,
        "points": [_point_fields(p) for p in found.points],
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
    _remark(remark)
    with progress_bar() as watch:
        choice, found = run_async(verify_point, access, machine, chosen, watch)
    lines = [f"point #{found.seq} of {machine}, {both_times(choice.point.time)}"]
    lines += [f"  {problem.key}: {problem.reason}" for problem in found.problems[:_LISTED]]
    lines += [f"  {_extent(extent)}" for extent in found.damage[:_LISTED]]
    verdict = "whole: it can be restored" if found.whole else "DAMAGED"
    lines.append(
        f"{verdict}; {found.commits} commits, {found.frames} frames, "
        f"{human(found.stored_bytes)} opened"
    )
    fields = {
        "machine": machine,
        "point": _point_fields(choice.point),
        "whole": found.whole,
        "commits": found.commits,
        "frames": found.frames,
        "stored_bytes": found.stored_bytes,
        "problems": [
            {"object": p.key, "reason": p.reason, "fatal": p.fatal} for p in found.problems
        ],
        "damage": [_extent_fields(extent) for extent in found.damage],
        "notes": list(choice.notes),
    }
    emit(as_json, fields, "\n".join(lines))
    if not found.whole:
        end_with(Damage.exit_code)


@click.command()
@click.argument("machine")
@access_options
@click.option("--at", "at", help="Point ('#12') or time; default: the newest consistent point.")
@click.option("--to", "folder", help="Folder for MACHINE-DISK.img; made if missing.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="DISK=DEVICE",
    help="Restore a disk onto a block device instead (repeatable).",
)
@click.option("--salvage", is_flag=True, help="Restore what can be had of a damaged point.")
@click.option("--expect", metavar="SEQ#DIGEST", help="A commit the vault must contain.")
@click.option("--dry-run", is_flag=True, help="Say what would be restored and stop.")
@click.option("--confirm", metavar="MACHINE", help="Overwrite devices without asking.")
@json_option
def restore(
    machine: str,
    at: str | None,
    folder: str | None,
    devices: tuple[str, ...],
    salvage: bool,
    expect: str | None,
    dry_run: bool,
    confirm: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Bring the disks of MACHINE back as files, or onto devices.

    Files that exist are never overwritten. An interrupted restore goes on when the same command
    is given again.
    """
    from pipeline.recovery import RestoreOrder, restore_point
    from stages.durable import make_dirs

    if folder is None and not devices:
        raise UsageError("where to?", operation="restore", hint="--to FOLDER, or --device")
    access = make_access(**where)
    chosen, remark = parse_at(at)
    _remark(remark)
    order = RestoreOrder(machine, chosen, folder, _devices(devices), salvage, _expected(expect))

    def approve(choice: Choice, targets: list[Target]) -> None:
        for note in choice.notes:
            say(f"note: {note}")
        say(
            f"point #{choice.point.seq} of {machine}, {both_times(choice.point.time)}, "
            f"{_grade(choice.point)}"
        )
        for target in targets:
            what = "OVERWRITES device" if target.device else "new file"
            say(f"  {target.disk.name}: {human(target.disk.size)} to {what} {target.path}")
        if dry_run:
            end_with(0)
        if any(target.device for target in targets):
            _confirm(machine, confirm)
        if folder is not None:
            make_dirs(access.ports.files, folder)

    with progress_bar() as watch:
        choice, report = run_async(partial(restore_point, access, order, approve, watch))
    fields = {
        "machine": machine,
        "point": _point_fields(choice.point),
        "disks": [
            {
                "disk": d.disk,
                "path": d.path,
                "size": d.size,
                "content_bytes": d.content,
                "resumed_at": d.resumed_at,
            }
            for d in report.disks
        ],
        "stored_bytes": report.stored_bytes,
        "damage": [_extent_fields(extent) for extent in report.damage],
        "notes": list(choice.notes),
    }
    lines = [f"{d.path}: {human(d.size)}, {human(d.content)} of content" for d in report.disks]
    lines += [f"  {_extent(extent)}" for extent in report.damage[:_LISTED]]
    if report.damage:
        lines.append("DAMAGED: the extents above read as zeros")
    emit(as_json, fields, "\n".join(lines))
    if report.damage:
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
    for entry in entries:
        command = f"backstay restore {entry.machine} --vault {where['url']} --key {where['key']}"
        if where["trust"]:
            command += f" --trust {where['trust']}"
        command += f" --to ./restored-{entry.machine}"
        lines.append(f"{entry.machine}  (group {entry.group})")
        lines += [f"  disk {name}: {human(size)}" for name, size in entry.disks]
        if entry.point is not None:
            lines.append(
                f"  newest consistent point: #{entry.point.seq}, {both_times(entry.point.time)}"
            )
            lines.append(f"  next: {command}")
        else:
            lines.append(f"  {entry.note}")
        rows.append(
            {
                "machine": entry.machine,
                "group": entry.group,
                "disks": dict(entry.disks),
                "point": entry.point and _point_fields(entry.point),
                "next": command if entry.point is not None else None,
                "note": entry.note,
            }
        )
    lines += [f"problem: {problem}" for problem in problems]
    emit(as_json, {"machines": rows, "problems": problems}, "\n".join(lines or ["empty vault"]))


def _devices(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = []
    for text in given:
        disk, equals, path = text.partition("=")
        if not (disk and equals and path):
            raise UsageError("not DISK=DEVICE", operation="restore", subject=text)
        found.append((disk, path))
    return tuple(found)


def _expected(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    seq, _, digest = text.partition("#")
    try:
        return int(seq), bytes.fromhex(digest)
    except ValueError:
        raise UsageError(
            "not SEQ#DIGEST",
            operation="restore",
            subject=text,
            hint="'backstay points --json' shows the digest of every point",
        ) from None


def _confirm(machine: str, given: str | None) -> None:
    """What the devices hold now is lost: the machine's name has to be typed."""
    if given is None:
        given = click.prompt(
            f"This cannot be undone. Type the machine's name ({machine}) to go on", err=True
        )
    if given != machine:
        raise UsageError("not confirmed: nothing was written", operation="restore", subject=machine)


def _remark(text: str) -> None:
    if text:
        say(text)


def _grade(point: Point) -> str:
    return point.grade if point.consistent or point.grade == "fuzzy" else "partial"


def _point_fields(point: Point) -> dict[str, Any]:
    return {
        "seq": point.seq,
        "time": point.time.isoformat(),
        "stamp": point.stamp,
        "class": point.grade,
        "consistent": point.consistent,
        "stored_bytes": point.stored,
        "digest": point.digest.hex(),
    }


def _extent(extent: DamagedExtent) -> str:
    end = extent.offset + extent.length
    return f"{extent.disk}: bytes {extent.offset} to {end}: {extent.key}: {extent.reason}"


def _extent_fields(extent: DamagedExtent) -> dict[str, Any]:
    return {
        "disk": extent.disk,
        "offset": extent.offset,
        "length": extent.length,
        "object": extent.key,
        "reason": extent.reason,
    }
