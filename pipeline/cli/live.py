"""``run`` for machines that are captured live, and ``mark``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline import logs
from pipeline.cli.console import emit, human, json_option, run_async
from stages.errors import NotFound, SourceBusy, UsageError
from stages.stream import DeliveryGone

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.state import StateFolder

_MARK_SECONDS = 120.0


def run_live(config: Config, drain: float, unchanged: tuple[str, ...] = ()) -> None:
    """Capture the live machines of a configuration until SIGTERM or SIGINT. ``unchanged``: disks
    that the operator vouches for, as MACHINE/DISK."""
    import trio

    from pipeline.state import StateFolder
    from pipeline.supervisor.notify import this_process
    from pipeline.supervisor.process import run_daemon
    from stages.system import this_machine

    logs.configure(config.daemon.log.format, config.daemon.log.level)
    live = [name for name, machine in config.machines.items() if machine.live]
    if not live:
        raise UsageError(
            "all its disks are scanned at rest, none is captured live",
            operation="run",
            subject=config.source,
            hint='give --once, and run it on a schedule; or write "capture: nbd"',
        )
    for name in config.machines:
        if name not in live:
            _event(f"{name}: is scanned at rest: run it with --once, on a schedule")
    for word in unchanged:
        _vouched(config, word)
    ports = this_machine()
    notifier = this_process()
    state = StateFolder.open(ports, config.daemon.state)
    try:
        # It has its own meaning for every signal, so not with run_async.
        work = partial(run_daemon, drain=drain, vouched=unchanged, notifier=notifier)
        trio.run(work, ports, config, state, _event)
    finally:
        state.close()


def _vouched(config: Config, word: str) -> None:
    """Check that a disk can be vouched for, and say what that means."""
    machine, slash, disk = word.partition("/")
    if not slash:
        raise UsageError(
            "not MACHINE/DISK",
            operation="run --unchanged",
            subject=word,
            hint="for example web1/root",
        )
    found = config.machine(machine)
    if disk not in found.disks:
        raise NotFound(
            f"machine {machine} has no such disk",
            operation="run --unchanged",
            subject=word,
            hint=f"known: {', '.join(found.disks)}",
        )
    if not found.live:
        raise UsageError(
            "is scanned at rest, and always compared", operation="run --unchanged", subject=word
        )
    _event(
        f"{word}: WARNING: taken as unchanged since the last stop on your word, and not compared. "
        "If anybody wrote to it meanwhile, every point from now on holds something else there, and "
        "nothing will tell"
    )


def _event(line: str) -> None:
    """A line of the log; that nobody reads it any more does not end a daemon."""
    for part in line.split("\n"):
        logs.event("daemon", part)


def live_rows(state: StateFolder) -> dict[str, dict[str, Any]]:
    """What intake says of each machine, if it is running."""
    from pipeline.daemon.link_client import IntakeGone, command
    from pipeline.daemon.names import INTAKE_SOCKET

    try:
        answer = run_async(partial(command, f"{state.path}/{INTAKE_SOCKET}", "status"))
    except IntakeGone:
        return {}
    return dict(answer["machines"])


def live_row(
    found: dict[str, Any] | None, delivery: dict[str, Any] | None, now: int
) -> dict[str, Any]:
    """What a machine that is captured live is doing at ``now`` (µs), for ``status``.

    ``found`` is what intake says of it, ``delivery`` the newest note of what delivery said.
    """
    if found is None:
        return {"last_run": "not running: its disks are not served", "live": None, "hint": ""}
    shown = str(found["state"])
    if shown == "scanning":
        shown += f" {found['percent']:.0f}%"
    if found["reason"]:
        shown += f" ({found['reason']})"
    if found["trouble"]:
        shown += f"; {found['trouble']}"
    shown += f"; {human(found['journal_bytes'])} of journal"
    shown += _scrubbed(found.get("scrub") or {})
    failed = {} if delivery is None or "message" not in delivery else delivery
    row = {"live": found, "delivery": delivery, "hint": failed.get("hint", "")}
    if not found["delivering"]:
        shown += "; nothing is shipped now"
        if failed:
            shown += f": {failed['message']}"
        if failed.get("again_in") is not None:
            again = failed["again_in"] - (now - failed["at"]) / 1e6
            shown += f"; next try in {max(0.0, again):.0f} s at the latest"
    return row | {"last_run": shown}


def _scrubbed(scrub: dict[str, Any]) -> str:
    """What the rolling scrub has found, ever: that must not be overlooked."""
    if not scrub.get("mismatches"):
        return ""
    when = datetime.fromtimestamp(scrub["last_us"] / 1e6, UTC)
    return (
        f"; the scrub found {scrub['mismatches']} blocks that changed without a write, last "
        f"{when:%Y-%m-%d %H:%M} UTC: earlier points may be wrong there"
    )


@click.command()
@click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.argument("machine")
@click.option("--label", default="", help="A word to remember it by, kept in the journal.")
@click.option(
    "--wait",
    default=_MARK_SECONDS,
    type=click.FloatRange(min=0),
    help="Seconds to wait until it is in the vault.",
    show_default=True,
)
@json_option
def mark(config: str, machine: str, label: str, wait: float, as_json: bool) -> None:
    """Make a recovery point of MACHINE now.

    With snapshot hooks on its disks they are run around it, and the point is one of the
    applications, if they succeed.
    """
    import trio

    from pipeline.config import load
    from pipeline.daemon.link_client import command
    from pipeline.daemon.names import INTAKE_SOCKET

    loaded = load(config)
    loaded.machine(machine)
    socket = f"{loaded.daemon.state}/{INTAKE_SOCKET}"

    async def ask() -> dict[str, Any] | None:
        with trio.move_on_after(wait):
            return await command(socket, "mark", machine=machine, label=label)
        return None

    made = run_async(ask)
    if made is None:
        raise DeliveryGone(
            f"not in the vault after {wait:g} s",
            operation="mark",
            subject=machine,
            hint="it becomes a recovery point when it is shipped: see 'backstay status'",
        )
    if not made["seq"]:
        raise SourceBusy(
            f"the mark is lost: {made['reason']}",
            operation="mark",
            subject=machine,
            hint="see 'backstay status'; mark again when it is replicating",
        )
    when = datetime.fromtimestamp(made["stamp"] / 1e6, UTC)
    fields = {"machine": machine, "seq": made["seq"], "stamp": made["stamp"]}
    text = f"{machine}: point #{made['seq']} ({made['grade']}), {when:%Y-%m-%d %H:%M:%S.%f} UTC"
    emit(as_json, fields | {"grade": made["grade"]}, text)
