"""``unprotect --delete-data``: all that a vault holds of a machine, shown and then removed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.cli.access import make_access
from pipeline.cli.confirming import confirmed
from pipeline.cli.console import emit, human, run_async, say
from pipeline.cli.failover_shown import whoever

if TYPE_CHECKING:
    from pipeline.deleting import Plan
    from stages.keeper.erase import Size


def delete_data(
    machine: str,
    where: tuple[str, str, str | None],
    typed: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete, or only say what would go. ``where``: URL, key file, trust file."""
    from pipeline.deleting import delete_machine

    who = whoever()
    ask = partial(_confirmed, machine, typed, as_json=as_json)
    given = (make_access(*where), machine, who.host, who.by, ask)
    done = run_async(partial(delete_machine, *given, dry_run=dry_run))
    text = "\n".join(_lines(done.plan)) if dry_run else _done(machine, done.gone)
    emit(as_json, _fields(done.plan, done.gone, dry_run=dry_run), text)


def _confirmed(machine: str, typed: str | None, plan: Plan, *, as_json: bool) -> None:
    if not as_json:
        say("\n".join(_lines(plan)))
    confirmed("unprotect --delete-data", machine, typed, hint=f"--yes-delete {machine}")


def _lines(plan: Plan) -> list[str]:
    lines = [
        f"group {each.group.hex()}: {each.points} points up to #{each.last}, "
        f"{each.size.objects} objects, {human(each.size.bytes)}"
        for each in plan.groups
    ]
    lines += [f"group {gid.hex()}: what is left of a deletion that was begun" for gid in plan.begun]
    lines += [f"stands in the way: {each}" for each in plan.obstacles]
    lines.append(f"deleted, nothing of {plan.machine} can be had again: no point, no disk")
    return lines


def _done(machine: str, gone: Size) -> str:
    return f"{machine}: deleted: {gone.objects} objects, {human(gone.bytes)}"


def _fields(plan: Plan, gone: Size, *, dry_run: bool) -> dict[str, Any]:
    return {
        "machine": plan.machine,
        "dry_run": dry_run,
        "groups": [
            {
                "group": each.group.hex(),
                "points": each.points,
                "first": each.first,
                "last": each.last,
                "objects": each.size.objects,
                "bytes": each.size.bytes,
            }
            for each in plan.groups
        ],
        "begun": [gid.hex() for gid in plan.begun],
        "obstacles": list(plan.obstacles),
        "deleted_objects": gone.objects,
        "deleted_bytes": gone.bytes,
    }
