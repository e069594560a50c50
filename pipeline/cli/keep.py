"""``keeper run|plan``: what stays in a vault, and what goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.confirming import typed
from pipeline.cli.console import emit, end_with, human, json_option, run_async, say
from stages.errors import Damage, UsageError

if TYPE_CHECKING:
    from pipeline.keeping import Keeping
    from stages.keeper.report import GroupReport, Report
    from stages.keeper.retain import Retention

_DIGITS = 8  # of the vault's id, to be typed


@click.group()
def keeper() -> None:
    """Let old points go, and what nothing needs any more.

    In two phases: a run first says what goes and what stays, signed, in the vault; a run after the
    grace deletes it. Give 'keeper run' every six hours, from a timer. It needs credentials that may
    delete, and the operator's key or that of a keeper ('backstay vault admit-keeper'), which opens
    no content.
    """


def _keeper_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--machine", "machines", multiple=True, help="Only this machine; repeatable."),
        click.option(
            "--grace",
            default="5h",
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
        confirm = typed(asked)
    digits = (confirm or "").lower()
    if len(digits) < _DIGITS or not ident.hex().startswith(digits):
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
                "rollups_made": group.rolled,
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
        if group.rolled:
            lines.append(f"  {would}made: {group.rolled} rollups that are missing")
    if group.waiting_us:
        hours = group.waiting_us / 3.6e9
        lines.append(
            f"  in the grace of floor {group.written or group.floor_number}: {hours:.1f} h"
        )
    lines += [f"  stays: #{seq}, {why}" for seq, why in group.wanted.items()]
    lines += [f"  note: {note}" for note in group.notes]
    lines += [f"  problem: {problem}" for problem in group.problems]
    return lines or ["  nothing to do"]
