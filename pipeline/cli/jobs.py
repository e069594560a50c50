"""``job list|show|cancel|restart|resume`` and ``events``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click

from pipeline.cli.client import Client, DaemonGone, api_options
from pipeline.cli.console import emit, human, json_option, say, tell
from pipeline.cli.tables import Grid, moment, percent, show

_TRIES, _AGAIN_SECONDS = 30, 2.0  # to find a daemon again that has gone


@click.group()
def job() -> None:
    """Work with the daemon's jobs."""


@job.command("list")
@click.option("--machine", default="", help="Only of this machine.")
@click.option("--active", is_flag=True, help="Only those that are not over.")
@click.option("--before", default=0, type=click.IntRange(min=0), help="With lower numbers.")
@click.option(
    "--count", default=20, type=click.IntRange(1, 1000), show_default=True, help="How many."
)
@json_option
@api_options
def list_jobs(
    client: Client, machine: str, active: bool, before: int, count: int, as_json: bool
) -> None:
    """List jobs, newest first."""
    found = client.get(
        "/v1/jobs", machine=machine, active="true" if active else "", before=before, limit=count
    )
    if as_json:
        emit(True, found, "")
        return
    rows = [
        (
            f"#{each['id']}", each["machine"], each["kind"], each["state"],
            percent(each["percent"]), moment(each["created_us"]), moment(each["ended_us"]),
            each["by"], _why(each),
        )
        for each in found["jobs"]
    ]  # fmt: skip
    heads = ("JOB", "MACHINE", "KIND", "STATE", "%", "CREATED", "ENDED", "BY", "WHY")
    show(Grid(heads, rows))


def _why(found: dict[str, Any]) -> str:
    return str(found["problem"]["message"]) if found["problem"] else str(found["description"])


@job.command("show")
@click.argument("number", type=click.IntRange(min=1))
@json_option
@api_options
def show_job(client: Client, number: int, as_json: bool) -> None:
    """Show job NUMBER with its tasks."""
    found = client.get(f"/v1/jobs/{number}")
    if as_json:
        emit(True, found, "")
        return
    moved = f"{human(found['bytes_done'])} of {human(found['bytes_total'])}"
    facts = [
        ("job", f"#{found['id']}: {found['kind']} of {found['machine']}"),
        ("state", f"{found['state']}, {percent(found['percent'])}, {moved}"),
        ("description", found["description"] or "-"),
        ("begun", f"{moment(found['created_us'])} by {found['by']}"),
        ("started", moment(found["started_us"])),
        ("ended", moment(found["ended_us"])),
        ("allowed now", ", ".join(found["allowed"]) or "nothing"),
        *(("result", f"{name}: {value}") for name, value in found["result"].items()),
        *(("note", each) for each in found["notes"]),
    ]
    if found["problem"]:
        facts.append(("problem", found["problem"]["message"]))
        facts.append(("hint", found["problem"]["hint"] or "-"))
    show(Grid(("", ""), facts))
    if found["tasks"]:
        tasks = [
            (t["name"], t["state"], percent(t["percent"]), t["message"]) for t in found["tasks"]
        ]
        show(Grid(("TASK", "STATE", "%", "MESSAGE"), tasks))


def _action(action: str, said: str) -> None:
    @click.argument("number", type=click.IntRange(min=1))
    @click.option("--note", default="", help="A word to remember it by, kept with the job.")
    @click.option("--dry-run", is_flag=True, help="Only say whether it is allowed.")
    @json_option
    @api_options
    def command(client: Client, number: int, note: str, dry_run: bool, as_json: bool) -> None:
        _act(client, number, action, note, dry_run, as_json)

    job.command(action, help=said)(command)


def _act(client: Client, number: int, action: str, note: str, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        found = client.get(f"/v1/jobs/{number}")
        allowed = action in found["allowed"]
        text = f"job #{number} is {found['state']}: {action} is {'' if allowed else 'not '}allowed"
        emit(as_json, {"dry_run": True, "allowed": allowed, "job": found}, text)
        return
    found = client.post(f"/v1/jobs/{number}/{action}", {"note": note})
    emit(as_json, {"job": found}, f"job #{found['id']}: {found['kind']}: {found['state']}")


_action("cancel", "Cancel job NUMBER.")
_action("restart", "Begin job NUMBER again after it failed or was cancelled.")
_action("resume", "Let job NUMBER go on, which waits for a person.")


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("--machine", default="", help="Only of this machine.")
@click.option("--after", default=0, type=click.IntRange(min=0), help="With higher ids than this.")
@click.option(
    "--count",
    default=50,
    type=click.IntRange(1, 1000),
    show_default=True,
    help="How many, at most.",
)
@json_option
@api_options
def events(
    client: Client, follow: bool, machine: str, after: int, count: int, as_json: bool
) -> None:
    """Show what happened, oldest first. With --follow each is a line as it happens; with --json
    too, a JSON document on each line."""
    if not follow:
        found = client.get("/v1/events", machine=machine, after=after, limit=count)
        if as_json:
            emit(True, found, "")
        for each in () if as_json else found["events"]:
            tell(_line(each))
        if not as_json and len(found["events"]) == count:
            say(f"there may be more: --after {found['events'][-1]['id']}")
        return
    _follow(client, after or None, machine, json.dumps if as_json else _line)


def _follow(
    client: Client, after: int | None, machine: str, line: Callable[[dict[str, Any]], str]
) -> None:
    """Lines as they come. A daemon that goes away may be starting again: it is asked on for a
    while, from where it was."""
    left = _TRIES
    while True:
        try:
            for each in client.events(after, machine):
                tell(line(each))
                after, left = each["id"], _TRIES
        except DaemonGone as error:
            left -= 1
            if after is None or left <= 0:
                raise
            say(f"{error.message}; trying again")
            time.sleep(_AGAIN_SECONDS)


def _line(one: dict[str, Any]) -> str:
    where = one["machine"] or "daemon"
    job_ = "" if one["job"] is None else f" (job #{one['job']})"
    return (
        f"{moment(one['at_us'])}  #{one['id']:<6} {one['kind']:8} {where}: {one['message']}{job_}"
    )
