"""``run`` for machines that are captured live, and ``mark``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.console import emit, json_option, run_async, tell
from stages.errors import SourceBusy, UsageError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.state import StateFolder

MARK_SECONDS = 120.0


def run_live(config: Config, drain: float) -> None:
    """Capture the live machines of a configuration until SIGTERM or SIGINT."""
    from pipeline.daemon.parent import run_daemon
    from pipeline.state import StateFolder
    from stages.system import this_machine

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
            tell(f"{name}: is scanned at rest: run it with --once, on a schedule")
    ports = this_machine()
    state = StateFolder.open(ports, config.daemon.state)
    try:
        run_async(partial(run_daemon, ports, config, state, tell, drain=drain))
    finally:
        state.close()


def live_rows(config: Config, state: StateFolder) -> dict[str, dict[str, Any]]:
    """What intake says of each machine, if it is running."""
    from pipeline.daemon.intake_main import SOCKET
    from pipeline.daemon.link_client import IntakeGone, command

    try:
        answer = run_async(partial(command, f"{state.path}/{SOCKET}", "status"))
    except IntakeGone:
        return {}
    return dict(answer["machines"])


@click.command()
@click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.argument("machine")
@click.option("--label", default="", help="A word to remember it by, kept in the journal.")
@json_option
def mark(config: str, machine: str, label: str, as_json: bool) -> None:
    """Make a recovery point of MACHINE now.

    With snapshot hooks on its disks they are run around it, and the point is one of the
    applications, if they succeed.
    """
    from pipeline.config import load
    from pipeline.daemon.intake_main import SOCKET
    from pipeline.daemon.link_client import command

    loaded = load(config)
    loaded.machine(machine)
    socket = f"{loaded.daemon.state}/{SOCKET}"
    made = run_async(partial(command, socket, "mark", machine=machine, label=label))
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
