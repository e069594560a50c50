"""``failover``: a vault and the operator's key are enough, with the source and its daemon gone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.access import access_options, make_access
from pipeline.cli.client import Client
from pipeline.cli.console import FOLDER, PLACE, emit, json_option, run_async, say
from pipeline.cli.failover_shown import (
    WITHOUT_RECORD,
    Asking,
    done_fields,
    done_text,
    replica_fields,
    replica_text,
    standing_fields,
    standing_text,
    wanted,
    whoever,
)
from pipeline.cli.operate import operate, operation_options
from pipeline.control.model import Operation
from stages.errors import NoSpace, StoreDenied, UsageError

if TYPE_CHECKING:
    from pipeline.failover.model import Done
    from pipeline.recovery import Access

Command = Callable[..., Any]
_FOLDER = "./failover"


@click.group()
def failover() -> None:
    """Fail a machine over and back out again, from any host with the vault and its key.

    Where a failover stands is kept in the vault, signed; no daemon has to run. The order: prepare
    and planned, or unplanned; serve, perhaps change-point, then commit or cancel. A test stands
    beside it.
    """


def _options(command: Command) -> Command:
    """What every operation takes."""
    for option in (
        click.option("--note", default="", help="A remark to be recorded, in clear."),
        click.option("--dry-run", is_flag=True, help="Say what is at stake and stop."),
        click.option("--confirm", metavar="MACHINE", help="Go on without asking."),
        json_option,
        access_options,
        click.argument("machine"),
    ):
        command = option(command)
    return command


def _point_options(command: Command) -> Command:
    """What chooses a point."""
    for option in (
        click.option(
            "--point",
            type=click.Choice(["latest", "latest-processed", "latest-app"]),
            help="The newest point, or the newest application-consistent one. [default: latest]",
        ),
        click.option("--at", help="A point ('#12') or a time: the last point at or before it."),
    ):
        command = option(command)
    return command


def _folder_option(help_text: str) -> Callable[[Command], Command]:
    return click.option("--folder", type=PLACE, default=_FOLDER, show_default=True, help=help_text)


@failover.command()
@operation_options
@click.option("--undo", is_flag=True, help="Serve its disks again, if nobody failed it over yet.")
def prepare(client: Client, machine: str, undo: bool, **how: Any) -> None:
    """Have MACHINE's daemon stop its guest, close its listeners and ship the last write.

    The guest is stopped by the machine's 'stop' command, or by you before. It stays off until the
    failover is cancelled, or this is undone. Then: 'failover planned', with the vault's key.
    """
    operation = Operation.CANCEL_FAILOVER if undo else Operation.PLANNED_FAILOVER
    operate(client, operation.value, machine, {}, **how)


@failover.command()
@_options
@click.option("--drained", is_flag=True, help="You have stopped the guest and drained the daemon.")
def planned(drained: bool, **given: Any) -> None:
    """Fail MACHINE over after 'failover prepare': nothing is lost.

    Without that, stop its guest, and let its daemon ship the rest and end.
    """
    from pipeline.failover.operations import open_failover

    _perform(partial(open_failover, planned=True, drained=drained), given, pick=True)


@failover.command()
@_options
@_point_options
def unplanned(**given: Any) -> None:
    """Fail MACHINE over to a point, because its source is lost."""
    from pipeline.failover.operations import open_failover

    _perform(partial(open_failover, planned=False), given, pick=True)


@failover.command("change-point")
@_options
@_point_options
def change_point(**given: Any) -> None:
    """Take another point for the failover of MACHINE, until it is committed."""
    from pipeline.failover.operations import change_point as change

    _perform(change, given, pick=True)


@failover.command()
@_options
def commit(**given: Any) -> None:
    """Make the failover of MACHINE final."""
    _conclude(Operation.COMMIT_FAILOVER, given)


@failover.command()
@_options
@click.option(
    "--state",
    "folder",
    required=True,
    type=FOLDER,
    help="State folder of the daemon that protects the replica from now on; it may be running.",
)
def reprotect(folder: str, **given: Any) -> None:
    """Go on protecting MACHINE where it runs after a committed failover: only what differs from the
    failover's point is shipped.

    The daemon has to be admitted ('backstay vault admit'). Production comes home the same way: fail
    over, 'restore --onto' the old disks, and reprotect with the old daemon's state. A daemon that
    runs lets go of this machine when its failover is committed and no client is connected to its
    disks, and takes it up again when this is done; its other machines notice nothing.
    """
    from pipeline.failover.reprotect import reprotect as go_on

    _perform(partial(go_on, folder=folder, tell=say), given)


@failover.command()
@_options
def migrate(**given: Any) -> None:
    """Note that MACHINE stays where it is after a committed failover: there is no way back."""
    _conclude(Operation.MIGRATE, given)


@failover.command()
@_options
@_folder_option("Where 'failover serve' on this host kept what the replica wrote: dropped.")
def cancel(folder: str, **given: Any) -> None:
    """Take the failover of MACHINE back: its source is protected again at its next start."""
    _conclude(Operation.CANCEL_FAILOVER, given, drop=folder)


@failover.command()
@_options
@_point_options
def test(**given: Any) -> None:
    """Open a test of MACHINE's failover; replication goes on meanwhile."""
    from pipeline.failover.operations import test as begin

    _perform(begin, given, pick=True)


@failover.command()
@_options
@_folder_option("Where 'failover serve --test' on this host kept what the test wrote: dropped.")
def cleanup(folder: str, **given: Any) -> None:
    """End the test of MACHINE and drop what it wrote; say with --note how it went."""
    _conclude(Operation.CLEANUP_TEST, given, drop=folder)


@failover.command()
@click.argument("machine")
@access_options
@json_option
def status(machine: str, as_json: bool, **where: Any) -> None:
    """Show where MACHINE's failover stands, and its history."""
    from pipeline.failover.operations import state

    found = run_async(state, make_access(**where), machine)
    emit(as_json, standing_fields(found), standing_text(found))


@failover.command()
@click.argument("machine")
@access_options
@_folder_option("Where what the replica writes is kept; give the same one to go on with it.")
@click.option("--listen", required=True, help="unix:PATH, or 127.0.0.1:PORT.")
@click.option("--test", "testing", is_flag=True, help="Serve the open test's point.")
@click.option("--hydrate", is_flag=True, help="Copy the point behind, all of it.")
@click.option("--command", help="Program that gets the sockets as JSON, at start and stop.")
@click.option(
    "--timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(1, 86400),
    help="Seconds for the command.",
)
@json_option
def serve(
    machine: str,
    folder: str,
    listen: str,
    testing: bool,
    hydrate: bool,
    command: str | None,
    timeout: float,
    as_json: bool,
    **where: Any,
) -> None:
    """Serve the disks of MACHINE's failover over NBD, writable, until interrupted.

    What is written is kept in the folder: give the same command again to go on with it.
    """
    from pipeline.failover.serve import ServeOrder, serve_replica
    from pipeline.failover.targets import CommandTarget, ExportTarget, Replica, Target

    def tell(replica: Replica) -> None:
        emit(as_json, replica_fields(replica), replica_text(replica))

    target: Target = ExportTarget(tell)
    if command is not None:
        target = CommandTarget(command, say, timeout, tell)
    order = ServeOrder(machine, folder, listen, testing, hydrate)
    run_async(partial(serve_replica, make_access(**where), order, target, say))


def _conclude(operation: Operation, given: dict[str, Any], *, drop: str | None = None) -> None:
    """An operation on what is open: no point is chosen."""
    from pipeline.failover.operations import conclude

    is_test = operation is Operation.CLEANUP_TEST
    _perform(partial(conclude, operation=operation), given, drop=drop, operation_is_test=is_test)


def _perform(
    operation: Callable[..., Any],
    given: dict[str, Any],
    *,
    pick: bool = False,
    drop: str | None = None,
    operation_is_test: bool = False,
) -> None:
    """Say what is at stake, ask where it cannot be undone, do it, say what was done.

    ``drop``: the folder whose replica (or test) is dropped once it is recorded.
    """
    from pipeline.failover.serve import drop_written

    machine, as_json = given.pop("machine"), given.pop("as_json")
    note, dry_run, confirm = given.pop("note"), given.pop("dry_run"), given.pop("confirm")
    chosen, at = given.pop("point", None), given.pop("at", None)
    if chosen and at:
        raise UsageError("--point and --at exclude each other", operation="failover")
    points, remark = wanted(chosen, at) if pick else (None, "")
    access = make_access(**given)
    asking = Asking(machine, confirm, as_json=as_json, remark=remark)
    keywords = {"note": note, "approve": asking, "rehearse": dry_run}
    arguments = (points,) if pick else ()

    async def work() -> tuple[Done, list[str]]:
        names = await _unused(access, machine, drop, test=operation_is_test) if drop else ()
        try:
            done: Done = await operation(access, machine, *arguments, whoever(), **keywords)
        except (NoSpace, StoreDenied) as error:
            if pick:
                error.hint += WITHOUT_RECORD
            raise
        dropped: list[str] = []
        for name in names if drop is not None and not dry_run else ():
            dropped += drop_written(access.ports.files, drop or "", name)
        return done, dropped

    done, dropped = run_async(work)
    emit(as_json, done_fields(done, dropped), done_text(done, dropped))


async def _unused(access: Access, machine: str, folder: str, *, test: bool) -> tuple[str, ...]:
    """The names of the folders to be dropped. Raises ``TargetError`` if one is being served."""
    from pipeline.failover.operations import state
    from pipeline.failover.serve import check_unused, folders_of

    names = folders_of((await state(access, machine)).log.records, test=test)
    for name in names:
        check_unused(access.ports.files, folder, name)
    return names
