"""``records``: the control database, proven and, if it is damaged, begun again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.console import emit, json_option, run_async
from stages.errors import StateDamaged

if TYPE_CHECKING:
    from pipeline.records.records import Records
    from stages.ports import Machine

T = TypeVar("T")


@click.group()
def records() -> None:
    """Look after the control database: jobs, events and the audit.

    It is a cache of the state folder and the vault: without it machines are protected all the same.
    """


@records.command()
@click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))
@json_option
def verify(config: str, as_json: bool) -> None:
    """Prove that the audit of CONFIG's daemon is whole: every entry follows from the one before."""

    async def look(ports: Machine, address: str) -> tuple[int, int | None, str]:
        from pipeline.records.records import Records

        opened = await Records.open(ports, address)
        try:
            found = await opened.verify_audit()
        finally:
            await opened.close()
        return found.checked, found.broken, found.reason

    checked, broken, reason = _with(config, look)
    if broken is not None:
        raise StateDamaged(
            f"entry #{broken} of the audit {reason}",
            operation="verify records",
            subject=config,
            hint="somebody changed the database, or its disk is failing: keep a copy of it",
        )
    emit(as_json, {"checked": checked}, f"{checked} entries of the audit, all whole")


@records.command()
@click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))
@json_option
def rebuild(config: str, as_json: bool) -> None:
    """Move a damaged database of CONFIG's daemon aside, and begin another.

    The daemon must not run. What is lost is the history of jobs, events and the audit.
    """

    async def again(ports: Machine, address: str) -> None:
        from pipeline.records.records import Records

        made: Records = await Records.rebuild(ports, address)
        await made.close()

    _with(config, again, alone=True)
    emit(as_json, {"rebuilt": True}, "begun again; the damaged file lies beside it")


def _with(
    config: str, work: Callable[[Machine, str], Coroutine[Any, Any, T]], *, alone: bool = False
) -> T:
    """``work`` on the database of a configuration; ``alone``: no daemon may use it."""
    from pipeline.config import load
    from pipeline.state import StateFolder
    from pipeline.supervisor.supervisor import database_of
    from stages.system import this_machine

    ports, loaded = this_machine(), load(config)
    state = StateFolder.open(ports, loaded.daemon.state, lock=alone)
    try:
        return run_async(work, ports, database_of(loaded, ports))
    finally:
        state.close()
