"""``status`` and ``machines``: asked of the daemon, or read in the state folder when none runs.

Imports are few and late: an answer takes less than 0.3 s of the processor.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import click

from pipeline.cli.client import Client, DaemonGone, Where, api_options, is_served
from pipeline.cli.console import emit, human, json_option, say
from pipeline.cli.tables import Grid, moment, percent, show, span
from stages.errors import UsageError

_HEADS = ("MACHINE", "STATE", "HEALTH", "RPO", "POINT", "POINT'S TIME", "JOURNAL", "SHIPPED", "NOW")
_VAULT_HEADS = (
    "VAULT", "PUTS", "GETS", "LISTS", "DELETES", "ERRORS", "SENT", "PUT P99", "LIMIT", "A MONTH",
)  # fmt: skip
# "daemon:" with what is indented below it, or in braces beside it; and what stands within that.
_BLOCK = re.compile(
    r"^daemon:[ \t]*(?:\{(?P<flow>[^}]*)\}[^\n]*|(?:#[^\n]*)?)$(?P<rest>(?:\n(?:[ \t][^\n]*)?)*)",
    re.MULTILINE,
)
_MOST = 4 << 20  # characters; a configuration that is larger is refused
_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)
_VALUE = r"(?P<quote>[\"']?)(?P<path>[^\"'#,}\n]+?)(?P=quote)[ \t]*(?:$|[,#}])"
_API = re.compile(r"(?:^|[\s,])api:[ \t]*" + _VALUE, re.MULTILINE)
_STATE = re.compile(r"(?:^|[\s,])state:[ \t]*" + _VALUE, re.MULTILINE)


def socket_of(config: str) -> str | None:
    """The socket of the daemon of a configuration, if one answers there.

    The file is only looked through: to read and check it takes longer than all the rest. What is
    not found this way is not lost, only read in the state folder instead.
    """
    path = Path(config)
    try:
        if not path.is_file():  # a pipe or a device might never end
            return None
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST)
    except (OSError, UnicodeDecodeError):
        return None
    block = _BLOCK.search(text)
    if block is None:
        return None
    inside = _COMMENT.sub("", block["flow"] or block["rest"] or "")
    api, state = _API.search(inside), _STATE.search(inside)
    if api is not None:
        socket = path.parent / api["path"].strip().removeprefix("unix:")
    elif state is not None:
        socket = path.parent / state["path"].strip() / "api.sock"
    else:
        return None
    return str(socket) if is_served(str(socket)) else None


@click.command()
@click.argument("config", metavar="[CONFIG]", required=False, type=click.Path(dir_okay=False))
@click.option("--watch", is_flag=True, help="Show it again and again, until interrupted.")
@click.option(
    "--every", default=2.0, type=click.FloatRange(min=0.2), show_default=True,
    help="Seconds between two looks, with --watch.",
)  # fmt: skip
@click.option("--folder", is_flag=True, help="Do not ask the daemon: read the state folder.")
@json_option
@api_options
def status(
    client: Client, config: str | None, watch: bool, every: float, folder: bool, as_json: bool
) -> None:
    """Show for each machine its state, health, newest point and how fresh it is.

    It is asked of the daemon: of the one of CONFIG, or where --api says. When no daemon of CONFIG
    runs, it is what the state folder and intake know; with --folder always.
    """
    if folder and config is None:
        raise UsageError("--folder wants a configuration", operation="status")
    if config is not None:
        socket = None if folder else socket_of(config)
        if socket is None:
            _without_daemon(config, watch, as_json)
            return
        client = Client(Where(f"unix:{socket}"))
    if not watch:
        _once(client, as_json)
        return
    if as_json:
        raise UsageError("--watch does not go with --json", operation="status", hint="ask again")
    _watch(client, every)


def _without_daemon(config: str, watch: bool, as_json: bool) -> None:
    if watch:
        raise UsageError("no daemon of this configuration runs", operation="status --watch")
    from pipeline.cli.run import folder_status

    folder_status(config, as_json)


def _once(client: Client, as_json: bool) -> None:
    daemon, rows = _asked(client)
    if as_json:
        shown = [{"machine": each["name"], **each} for each in rows]
        emit(True, {"daemon": daemon, "machines": shown, "key_drilled": _drilled(daemon)}, "")
        return
    show(status_table(rows), *_of_vaults(daemon), *_remarks(daemon, rows))


def _asked(client: Client) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return client.get("/v1/daemon"), list(client.get("/v1/machines")["machines"])


def _watch(client: Client, every: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    daemon, rows = _asked(client)
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            remarks = (Text(each) for each in _remarks(daemon, rows))
            tables = (each.rich() for each in (status_table(rows), *_of_vaults(daemon)))
            live.update(Group(*tables, *remarks), refresh=True)
            time.sleep(every)
            try:
                daemon, rows = _asked(client)
            except DaemonGone as error:  # it may be on its way up again
                live.update(Text(str(error)), refresh=True)


def _of_vaults(daemon: dict[str, Any]) -> list[Grid]:
    """What goes to each vault, and what a month of that costs."""
    stores = daemon.get("stores") or []
    return [Grid(_VAULT_HEADS, [_vault_row(each) for each in stores])] if stores else []


def _vault_row(one: dict[str, Any]) -> tuple[str, ...]:
    found = {each["name"]: each for each in one["operations"]}
    errors = sum(sum(each["errors"].values()) for each in one["operations"])
    limit = "-" if one["upload_limit"] is None else f"{human(one['upload_limit'])}/s"
    if one["waiting"]:
        limit += f", {one['waiting']} waiting"
    return (
        one["vault"],
        str(found["put"]["calls"]),
        str(found["get"]["calls"] + found["info"]["calls"]),
        str(found["list"]["calls"]),
        str(found["delete"]["calls"]),
        str(errors),
        human(found["put"]["bytes"]),
        f"{1000 * found['put']['p99_seconds']:.0f} ms" if found["put"]["calls"] else "-",
        limit,
        _month(one["month"]),
    )


def _month(month: dict[str, Any]) -> str:
    """The forecast: from what was observed, or at most."""
    gets = month["gets"] + month["infos"]
    said = f"{month['puts']:,} puts, {gets:,} gets, {month['lists']:,} lists"
    if month["observed_seconds"]:
        return f"{said}, {human(month['sent_bytes'])} (by {span(month['observed_seconds'])})"
    return f"at most {said}; {month['idle_puts']:,} puts if idle"


def status_table(rows: list[dict[str, Any]]) -> Grid:
    """What is of interest at once."""
    return Grid(_HEADS, [_row(each) for each in rows])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    point = "-" if one["point"] is None else f"#{one['point']}"
    state = one["state"] if one["direction"] == "forward" else f"{one['state']} (reverse)"
    return (
        one["name"],
        state,
        one["health"],
        span(one["rpo_seconds"]),
        point,
        moment(one["point_stamp_us"]),
        human(one["journal_bytes"]),
        human(one["shipped_bytes"]),
        _now(one),
    )


def _now(one: dict[str, Any]) -> str:
    """What it is at, and what is in its way."""
    said = []
    scan, ladder = one["scan"], one["ladder"]
    if scan is not None:
        done = percent(100 * scan["done"] / scan["total"] if scan["total"] else None)
        eta = "" if scan["eta_seconds"] is None else f", {span(scan['eta_seconds'])} left"
        said.append(f"scan {done}{eta}")
    if one["job"] is not None:
        said.append(f"job #{one['job']}")
    if one["test"] != "none":
        said.append(f"test failover {one['test']}")
    if ladder["attempt"]:
        again = moment(ladder["next_try_us"])
        said.append(f"attempt {ladder['attempt']} failed, next at {again}")
    return "; ".join(said) or "-"


def _remarks(daemon: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Why things are not as they should be."""
    found = [f"key drilled: {_drilled(daemon)}"]
    for name, reasons in [("daemon", daemon["reasons"])] + [
        (r["name"], r["reasons"]) for r in rows
    ]:
        found += [f"{each['health']}: {name}: {each['message']}" for each in reasons]
    for one in rows:
        last = one["ladder"]["last"]
        if last is not None and one["ladder"]["attempt"]:
            found.append(f"{one['name']}: {last['message']}")
    return found


def _drilled(daemon: dict[str, Any]) -> str:
    stamp = daemon["key_drilled_us"]
    return "never: run 'backstay key drill'" if stamp is None else moment(stamp)


@click.command()
@click.argument("machine", required=False)
@json_option
@api_options
def machines(client: Client, machine: str | None, as_json: bool) -> None:
    """List the machines that the daemon protects, or show MACHINE with all that is known of it."""
    if machine is None:
        rows = client.get("/v1/machines")["machines"]
        if as_json:
            emit(True, {"machines": rows}, "")
            return
        shown = [
            (r["name"], r["state"], r["health"], r["vault"], r["policy"], ", ".join(r["allowed"]))
            for r in rows
        ]
        show(Grid(("MACHINE", "STATE", "HEALTH", "VAULT", "POLICY", "ALLOWED NOW"), shown))
        return
    from urllib.parse import quote

    one = client.get(f"/v1/machines/{quote(machine, safe='')}")
    if as_json:
        emit(True, one, "")
        return
    show(status_table([one]))
    disks = [(d["name"], human(d["size"]), d["path"], d["socket"] or "-") for d in one["disks"]]
    show(Grid(("DISK", "SIZE", "PATH", "SOCKET"), disks))
    show(f"allowed now: {', '.join(one['allowed']) or 'nothing'}")
    for each in one["reasons"]:
        say(f"{each['health']}: {each['message']}" + (f" ({each['hint']})" if each["hint"] else ""))
