"""``points``, ``verify``, ``restore``, ``rescue``: they take a vault and a key, nothing else."""

from __future__ import annotations

import os
import re
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.console import emit, end_with, human, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from pipeline.cli.progress import progress_bar
from stages.errors import Damage, UsageError

if TYPE_CHECKING:
    from pipeline.recovery import RescueEntry
    from stages.recover.extract import DamagedExtent
    from stages.recover.points import Choice, Point
    from stages.recover.target import Target

_LISTED = 50
_MOST_LISTED = 100_000
_EXPECTED = re.compile(r"([1-9][0-9]{0,14})#((?:[0-9a-fA-F]{2}){8,32})")


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
    with progress_bar() as watch:
        choice, found = run_async(verify_point, access, machine, chosen, watch)
    notes = [*filter(None, [remark]), *choice.notes]
    lines = [f"point #{found.seq} of {machine}, {both_times(choice.point.time)}"]
    lines += [f"  note: {note}" for note in notes]
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
        "notes": notes,
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

    Files that exist are never overwritten. The files of all disks get their names together, once
    everything is written; until then they end in .partial, and an interrupted restore goes on when
    the same command is given again.
    """
    from pipeline.recovery import RestoreOrder, restore_point

    if folder is None and not devices:
        raise UsageError("where to?", operation="restore", hint="--to FOLDER, or --device")
    access = make_access(**where)
    chosen, remark = parse_at(at)
    order = RestoreOrder(machine, chosen, folder, _devices(devices), salvage, _expected(expect))

    def approve(choice: Choice, targets: list[Target]) -> None:
        overwritten = any(target.device for target in targets)
        if dry_run:
            notes = [*filter(None, [remark]), *choice.notes]
            emit(as_json, _plan_fields(machine, choice, targets, notes), "nothing was written")
        if not as_json or (overwritten and not dry_run and confirm is None):
            _announce(machine, choice, targets, remark)
        if dry_run:
            end_with(0)
        if overwritten:
            _confirm(machine, confirm)

    with progress_bar() as watch:
        choice, report = run_async(partial(restore_point, access, order, approve, watch))
    fields = {
        "machine": machine,
        "point": _point_fields(choice.point),
        "dry_run": False,
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
        "notes": [*filter(None, [remark]), *choice.notes],
    }
    _notes(choice)
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
                "point": entry.point and _point_fields(entry.point),
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


def _announce(machine: str, choice: Choice, targets: list[Target], remark: str) -> None:
    """Say what is about to happen."""
    for note in (*filter(None, [remark]), *choice.notes):
        say(f"note: {note}")
    point = choice.point
    say(f"point #{point.seq} of {machine}, {both_times(point.time)}, {_grade(point)}")
    for target in targets:
        what = "OVERWRITES device" if target.device else "new file"
        say(f"  {target.disk.name}: {human(target.disk.size)} to {what} {target.path}")


def _plan_fields(
    machine: str, choice: Choice, targets: list[Target], notes: list[str]
) -> dict[str, Any]:
    return {
        "machine": machine,
        "point": _point_fields(choice.point),
        "dry_run": True,
        "disks": [
            {"disk": t.disk.name, "path": t.path, "size": t.disk.size, "device": t.device}
            for t in targets
        ],
        "notes": notes,
    }


def _devices(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in given:
        disk, equals, path = text.partition("=")
        if not (disk and equals and path):
            raise UsageError(
                "not DISK=DEVICE",
                operation="restore",
                subject=text,
                hint="'backstay rescue' shows the names of the disks",
            )
        if disk in found:
            raise UsageError("a device is given twice for it", operation="restore", subject=disk)
        found[disk] = path
    return tuple(found.items())


def _expected(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    found = _EXPECTED.fullmatch(text)
    if found is None:
        raise UsageError(
            "not SEQ#DIGEST, with at least 16 hex digits",
            operation="restore",
            subject=text,
            hint="'backstay points --json' shows the digest of every point",
        )
    return int(found[1]), bytes.fromhex(found[2])


def _confirm(machine: str, given: str | None) -> None:
    """What the devices hold now is lost: the machine's name has to be typed."""
    if given is None and not os.isatty(0):
        raise UsageError(
            "has to be confirmed, and there is no terminal to ask on",
            operation="restore",
            subject=machine,
            hint=f"what the devices hold is lost; if that is right: --confirm {machine}",
        )
    if given is None:
        if not os.isatty(0):
            raise UsageError(
                "a device would be overwritten, and there is no terminal to confirm it",
                operation="restore",
                subject=machine,
                hint=f"--confirm {machine}, if that is what you want",
            )
        given = click.prompt(
            f"This cannot be undone. Type the machine's name ({machine}) to go on", err=True
        )
    if given != machine:
        raise UsageError(
            "not confirmed: nothing was written",
            operation="restore",
            subject=machine,
            hint=f"what the devices hold is lost; if that is right: --confirm {machine}",
        )


def _notes(choice: Choice) -> None:
    """Say what has not been said yet."""
    context = click.get_current_context()
    said = context.meta.setdefault("backstay.notes", set())
    for note in choice.notes:
        if note not in said:
            say(f"note: {note}")
            said.add(note)


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
