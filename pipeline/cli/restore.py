"""``restore``: a vault and a key are enough."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.confirming import confirmed
from pipeline.cli.console import PLACE, emit, end_with, human, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from pipeline.cli.progress import progress_bar
from pipeline.cli.shown import LISTED, extent_fields, extent_text, grade, point_fields
from stages.errors import Damage, UsageError

if TYPE_CHECKING:
    from stages.recover.points import Choice
    from stages.recover.restore import Report, Restored
    from stages.recover.target import Target

_EXPECTED = re.compile(r"([1-9][0-9]{0,14})#((?:[0-9a-fA-F]{2}){8,32})")


@click.command()
@click.argument("machine")
@access_options
@click.option("--at", "at", help="Point ('#12') or time; default: the newest consistent point.")
@click.option("--to", "folder", type=PLACE, help="Folder for MACHINE-DISK.img; made if missing.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="DISK=DEVICE",
    help="Restore a disk onto a block device instead (repeatable).",
)
@click.option(
    "--onto",
    "onto",
    multiple=True,
    metavar="DISK=PATH",
    help="Bring an image or device that holds another version of a disk to the point: it is "
    "compared, and only what differs is written (repeatable). One that is missing is made.",
)
@click.option("--resize", is_flag=True, help="With --onto: files of another size get the disk's.")
@click.option("--salvage", is_flag=True, help="Restore what can be had of a damaged point.")
@click.option("--expect", metavar="SEQ#DIGEST", help="A commit the vault must contain.")
@click.option("--dry-run", is_flag=True, help="Say what would be restored and stop.")
@click.option("--confirm", metavar="MACHINE", help="Overwrite what is there without asking.")
@json_option
def restore(
    machine: str,
    at: str | None,
    folder: str | None,
    devices: tuple[str, ...],
    onto: tuple[str, ...],
    resize: bool,
    salvage: bool,
    expect: str | None,
    dry_run: bool,
    confirm: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Bring the disks of MACHINE back as files, or onto devices.

    Files that exist are never overwritten, but for those given with --onto. The files of all disks
    get their names together, once everything is written; until then they end in .partial, and an
    interrupted restore goes on when the same command is given again.
    """
    from pipeline.cli.failover_shown import reading
    from pipeline.recovery import RestoreOrder, restore_point

    onto_devices, onto_paths = _places(folder, devices, onto, resize)
    access = make_access(**where)
    chosen, remark = parse_at(at)
    order = RestoreOrder(
        machine,
        chosen,
        folder,
        onto_devices,
        salvage,
        _expected(expect),
        onto=onto_paths,
        resize=resize,
        by=reading("restore"),
    )

    def approve(choice: Choice, targets: list[Target]) -> None:
        overwritten = any(target.device or target.onto for target in targets)
        if dry_run:
            emit(as_json, _plan_fields(machine, choice, targets, remark), "nothing was written")
        asks = overwritten and not dry_run and confirm is None and os.isatty(0)
        if not as_json or asks:
            _announce(machine, choice, targets, remark)
        if dry_run:
            end_with(0)
        if overwritten:
            _confirm(machine, confirm)

    with progress_bar() as watch:
        choice, report = run_async(partial(restore_point, access, order, approve, watch))
    if not as_json:
        _notes(choice)  # what was passed over while the content was read
    emit(as_json, _fields(machine, choice, report, remark), _text(report))
    if report.damage:
        end_with(Damage.exit_code)


def _fields(machine: str, choice: Choice, report: Report, remark: str) -> dict[str, Any]:
    return {
        "machine": machine,
        "point": point_fields(choice.point),
        "dry_run": False,
        "disks": [
            {
                "disk": d.disk,
                "path": d.path,
                "size": d.size,
                "content_bytes": d.content,
                "resumed_at": d.resumed_at,
                "compared": d.compared,
                "written": d.written,
            }
            for d in report.disks
        ],
        "stored_bytes": report.stored_bytes,
        "damage": [extent_fields(extent) for extent in report.damage],
        "notes": [*filter(None, [remark]), *choice.notes],
    }


def _text(report: Report) -> str:
    lines = [_disk_line(d) for d in report.disks]
    lines += [f"  {extent_text(extent)}" for extent in report.damage[:LISTED]]
    if report.damage:
        older = any(extent.older for extent in report.damage)
        other = " or, where they may be older, as at an earlier moment" if older else ""
        lines.append(f"DAMAGED: the extents above read as zeros{other}")
    return "\n".join(lines)


def _disk_line(done: Restored) -> str:
    text = f"{done.path}: {human(done.size)}, {human(done.content)} of content"
    if done.compared:
        text += f"; compared {human(done.compared)}, wrote {human(done.written)} that differed"
    return text


def _announce(machine: str, choice: Choice, targets: list[Target], remark: str) -> None:
    """Say what is about to happen."""
    if remark:
        say(f"note: {remark}")
    _notes(choice)
    point = choice.point
    say(f"point #{point.seq} of {machine}, {both_times(point.time)}, {grade(point)}")
    for target in targets:
        what = "OVERWRITES device" if target.device else "new file"
        if target.onto:
            what = "what differs OVERWRITTEN in"
        say(f"  {target.disk.name}: {human(target.disk.size)} to {what} {target.path}")


def _plan_fields(
    machine: str, choice: Choice, targets: list[Target], remark: str
) -> dict[str, Any]:
    return {
        "machine": machine,
        "point": point_fields(choice.point),
        "dry_run": True,
        "disks": [
            {
                "disk": t.disk.name,
                "path": t.path,
                "size": t.disk.size,
                "device": t.device,
                "onto": t.onto,
            }
            for t in targets
        ],
        "notes": [*filter(None, [remark]), *choice.notes],
    }


def _places(
    folder: str | None, devices: tuple[str, ...], onto: tuple[str, ...], resize: bool
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Of ``--device`` and ``--onto``: disks and their paths, each disk once."""
    if folder is None and not devices and not onto:
        hint = "--to FOLDER, --device, or --onto"
        raise UsageError("where to?", operation="restore", hint=hint)
    if resize and not onto:
        raise UsageError("--resize goes with --onto", operation="restore", hint="leave it out")
    found = _pairs((*devices, *onto))
    return found[: len(devices)], found[len(devices) :]


def _pairs(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in given:
        disk, equals, path = text.partition("=")
        if not (disk and equals and path):
            raise UsageError(
                "not DISK=PATH",
                operation="restore",
                subject=text,
                hint="'backstay rescue' shows the names of the disks",
            )
        if disk in found:
            raise UsageError("a place is given twice for it", operation="restore", subject=disk)
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
    """What is there now is lost: the machine's name has to be typed."""
    hint = f"what is there now is lost; if that is right: --confirm {machine}"
    confirmed("restore", machine, given, hint=hint, nothing="nothing was written")


def _notes(choice: Choice) -> None:
    """Say what has not been said yet."""
    context = click.get_current_context()
    said = context.meta.setdefault("backstay.notes", set())
    for note in choice.notes:
        if note not in said:
            say(f"note: {note}")
            said.add(note)
