"""``keeper run|plan``, ``hold``, ``release``, ``holds``: what stays in a vault, and what goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.console import emit, end_with, human, json_option, run_async, say
from pipeline.cli.moment import both_times, parse_at
from pipeline.cli.shown import point_fields
from stages.errors import Damage, UsageError

if TYPE_CHECKING:
    from pipeline.keeping import Keeping
    from stages.keeper.report import GroupReport, Report
    from stages.keeper.retain import Retention
    from stages.vault.floors import Hold

_DIGITS = 8  # of the vault's id, to be typed


@click.group()
def keeper() -> None:
    """Let old points go, and what nothing needs any more.

    In two phases: a run first says what goes and what stays, signed, in the vault; a run after the
    grace deletes it. Give 'keeper run' once a day, from a timer. It needs credentials that may
    delete, and the operator's key or that of a keeper ('backstay vault admit-keeper'), which opens
    no content.
    """


def _keeper_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--machine", "machines", multiple=True, help="Only this machine; repeatable."),
        click.option(
            "--grace",
            default="24h",
            show_default=True,
            help="How long readers that have begun may go on before anything is deleted.",
        ),
        click.option(
            "--retention",
            help="What to keep of machines without a configuration, as all=24h,hourly=7d,daily=30d",
        ),
        click.option("--config", "config_path", help="Take retention from these policies."),
        json_option,
        access_options,
    ):
        command = option(command)
    return command


@keeper.command()
@_keeper_options
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--confirm", metavar="ID", help="The vault's id, or the first 8 digits: do not ask.")
def run(dry_run: bool, confirm: str | None, as_json: bool, **given: Any) -> None:
    """Delete what was let go a grace ago, then let go of what has grown too old."""
    _run(given, as_json, confirm=confirm, dry_run=dry_run)


@keeper.command()
@_keeper_options
def plan(as_json: bool, **given: Any) -> None:
    """Say what 'keeper run' would do; nothing is written."""
    _run(given, as_json, confirm=None, dry_run=True)


def _run(given: dict[str, Any], as_json: bool, *, confirm: str | None, dry_run: bool) -> None:
    from pipeline.keeping import run_keeper

    keeping = _keeping(given)
    access = make_access(given["url"], given["key"], given["trust"])
    asks = not dry_run and confirm is None
    if asks and not os.isatty(0):
        raise UsageError(
            "deletes for good, and was not confirmed",
            operation="keeper run",
            subject=given["url"],
            hint="'backstay keeper plan' shows what would go; then --confirm with the vault's id",
        )
    work = partial(
        run_keeper,
        access,
        keeping,
        partial(_confirmed, confirm, given["url"]),
        dry_run=dry_run,
        show_first=asks,
    )
    ident, report = run_async(work)
    emit(as_json, _fields(ident, report), _text(report))
    if not report.clean:
        end_with(Damage.exit_code)


def _confirmed(confirm: str | None, url: str, ident: bytes, planned: Report | None) -> None:
    """Raise ``UsageError`` unless this vault was meant."""
    if planned is not None:
        say(_text(planned))
        say(f"vault {ident.hex()}: what is deleted cannot be brought back")
        asked = f"Type the first {_DIGITS} digits of the vault's id to go on"
        confirm = click.prompt(asked, default="", err=True)
    typed = (confirm or "").lower()
    if len(typed) < _DIGITS or not ident.hex().startswith(typed):
        raise UsageError(
            "not confirmed: nothing is done",
            operation="keeper run",
            subject=url,
            hint=f"the id of the vault there begins with {ident.hex()[:_DIGITS]}",
        )


def _keeping(given: dict[str, Any]) -> Keeping:
    from pipeline.config import load
    from pipeline.config.policy import as_retention
    from pipeline.keeping import Keeping

    if not given["config_path"] and not given["retention"]:
        raise UsageError(
            "nothing says what to keep",
            operation="keeper",
            subject=given["url"],
            hint="--config with policies that have a retention, or "
            "--retention all=24h,hourly=7d,daily=30d for all machines",
        )
    policies: dict[str, Retention] = {}
    if given["config_path"]:
        config = load(given["config_path"])
        policies = {
            name: as_retention(config.policy_of(machine).retention)
            for name, machine in config.machines.items()
        }
    default = _retention(given["retention"]) if given["retention"] else None
    grace = _seconds("--grace", given["grace"])
    return Keeping(policies, default, grace, frozenset(given["machines"]))


def _retention(text: str) -> Retention:
    from stages.keeper.retain import Retention

    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in ("all", "hourly", "daily") or name in found:
            raise UsageError(
                f"{part.strip()!r} says nothing about what to keep",
                operation="--retention",
                subject=text,
                hint="for example all=24h,hourly=7d,daily=30d",
            )
        found[name] = _seconds("--retention", value)
    if "all" not in found:
        raise UsageError("'all' is missing", operation="--retention", subject=text)
    return Retention(found["all"], found.get("hourly", 0.0), found.get("daily", 0.0))


def _seconds(option: str, text: str) -> float:
    from pipeline.config.units import Wrong, parse_duration

    try:
        return float(parse_duration(text))
    except Wrong as error:
        raise UsageError(
            error.message, operation=option, subject=text, hint=error.hint or "for example 24h"
        ) from None


def _fields(ident: bytes, report: Report) -> dict[str, Any]:
    return {
        "vault": ident.hex(),
        "dry_run": report.dry_run,
        "store_time": datetime.fromtimestamp(report.now_us / 1e6, UTC).isoformat(),
        "problems": report.problems,
        "groups": [
            {
                "machine": group.machine,
                "group": group.group,
                "tail": group.tail,
                "floor": group.floor,
                "next_floor": group.next_floor or group.floor,
                "points_before_floor": group.points,
                "points_let_go": group.gone,
                "deleted_objects": group.objects,
                "deleted_bytes": dict(group.deleted),
                "to_go_objects": group.to_go_objects,
                "to_go_bytes": dict(group.to_go),
                "moved_bytes": group.moved,
                "floor_written": group.written or None,
                "waiting_seconds": group.waiting_us / 1e6,
                "needed": {str(seq): why for seq, why in group.wanted.items()},
                "notes": group.notes,
                "problems": group.problems,
            }
            for group in report.groups
        ],
    }


def _text(report: Report) -> str:
    lines: list[str] = []
    for group in report.groups:
        lines += [f"{group.machine or '?'}  (group {group.group})", *_group_lines(group, report)]
    lines += [f"problem: {problem}" for problem in report.problems]
    return "\n".join(lines or ["nothing in this vault"])


def _group_lines(group: GroupReport, report: Report) -> list[str]:
    would = "would be " if report.dry_run else ""
    lines = []
    if group.objects:
        kinds = ", ".join(f"{kind} {human(size)}" for kind, size in group.deleted.items())
        lines.append(
            f"  {would}deleted: {group.objects} objects, {human(group.deleted_bytes)} ({kinds})"
        )
    if group.next_floor:
        lines.append(
            f"  all points from #{group.next_floor} on and {group.points} before it stay; "
            f"{group.gone} {would or 'were '}let go"
        )
        size = sum(group.to_go.values())
        lines.append(f"  goes after the grace: {group.to_go_objects} objects, {human(size)}")
        if group.moved:
            lines.append(f"  {would}moved together: {human(group.moved)}")
    if group.waiting_us:
        hours = group.waiting_us / 3.6e9
        lines.append(
            f"  in the grace of floor {group.written or group.floor_number}: {hours:.1f} h"
        )
    lines += [f"  stays: #{seq}, {why}" for seq, why in group.wanted.items()]
    lines += [f"  note: {note}" for note in group.notes]
    lines += [f"  problem: {problem}" for problem in group.problems]
    return lines or ["  nothing to do"]


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
    if remark:
        say(remark)
    said = "is held already" if held.again else ("would be held" if dry_run else "is held")
    emit(
        as_json,
        {
            "machine": machine,
            "group": held.group,
            "point": point_fields(held.point),
            "dry_run": dry_run,
            "held_before": held.again,
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
    if confirm is None and not os.isatty(0):
        raise UsageError(
            "has to be confirmed, and there is no terminal to ask on",
            operation="release",
            subject=machine,
            hint=f"--confirm {machine}",
        )
    if confirm is None:
        confirm = click.prompt(f"Type the machine's name ({machine}) to go on", err=True)
    if confirm != machine:
        raise UsageError("not confirmed: nothing is done", operation="release", subject=machine)


@click.command()
@click.argument("machine")
@access_options
@json_option
def holds(machine: str, as_json: bool, **where: Any) -> None:
    """List the points of MACHINE that are held."""
    from pipeline.keeping import list_holds

    access = make_access(**where)
    group, found = run_async(list_holds, access, machine)
    lines = [f"{'#' + str(each.seq):>8}  {_hold_text(each)}" for each in found.holds]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"problem: {problem}" for problem in found.problems]
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
        "notes": list(found.notes),
        "problems": list(found.problems),
    }
    emit(as_json, fields, "\n".join(lines or ["no point is held"]))


def _when(hold: Hold) -> datetime:
    return datetime.fromtimestamp(hold.stamp / 1e6, UTC)


def _hold_text(hold: Hold) -> str:
    return f"held since {both_times(_when(hold))} by {hold.by}" + (
        f": {hold.note}" if hold.note else ""
    )
