"""Operations on machines, asked of the daemon: dry runs, confirmations, jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import click

from pipeline.cli.client import Client, api_options
from pipeline.cli.confirming import confirmed
from pipeline.cli.console import emit, end_with, fail, json_option, say
from stages.errors import UsageError

_LOOK_SECONDS = 0.5


def _reached(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    from pipeline.cli.access import reached

    return None if url is None else reached(context, parameter, url)


def operation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all operations have: ``--dry-run``, ``--confirm``, ``--wait``, ``--json``."""
    for option in (
        api_options,
        json_option,
        click.option("--wait", is_flag=True, help="Return when its job is over."),
        click.option("--confirm", metavar="NAME", default="", help="The machine's name, typed."),
        click.option("--dry-run", is_flag=True, help="Only say what would be done."),
    ):
        command = option(command)
    return click.argument("machine")(command)


def operate(
    client: Client,
    operation: str,
    machine: str,
    parameters: Mapping[str, Any],
    *,
    dry_run: bool,
    confirm: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Carry one out. What cannot be undone is shown first, and wants the machine's name."""
    path = f"/v1/machines/{quote(machine, safe='')}/operations/{operation}"
    body = {"parameters": dict(parameters)}
    stake = client.post(path, {**body, "dry_run": True})["stake"]
    if dry_run:
        emit(as_json, {"dry_run": True, "stake": stake}, "\n".join(stake["lines"]))
        return
    if stake["irreversible"]:
        if not as_json:
            say("\n".join(stake["lines"]))
        hint = f"--confirm {machine}; or see with --dry-run what is at stake"
        confirm = confirmed(operation, machine, confirm or None, hint=hint)
    answer = client.post(path, {**body, "confirm": confirm}, _key())
    job = answer["job"]
    if job is None:
        emit(as_json, answer, f"{machine}: {operation}: done")
    elif wait:
        finish(client, job, as_json)
    else:
        text = f"{machine}: job #{job['id']}: {job['kind']}: {job['state']}"
        emit(as_json, answer, text)
        if not as_json:
            say(f"see: backstay job show {job['id']}")


def _key() -> str:
    import secrets

    return secrets.token_hex(16)


def finish(client: Client, job: dict[str, Any], as_json: bool) -> None:
    """Wait for a job that was begun; leave with the exit code of what made it fail."""
    over = ("succeeded", "failed", "cancelled", "suspended")
    while job["state"] not in over:
        time.sleep(_LOOK_SECONDS)
        job = client.get(f"/v1/jobs/{job['id']}")
    how = f": {job['description']}" if job["description"] else ""
    emit(as_json, {"job": job}, f"{job['machine']}: job #{job['id']}: {job['state']}{how}")
    if job["state"] == "succeeded":
        return
    problem = job["problem"]
    if problem is None:
        end_with(11)
    from pipeline.cli.client import as_error

    said = {**problem, "detail": problem["message"]}
    end_with(fail(as_error(said), as_json))


def _plain(name: str, operation: str, said: str) -> click.Command:
    """A command that is one operation without parameters."""

    @operation_options
    def command(client: Client, machine: str, **how: Any) -> None:
        operate(client, operation, machine, {}, **how)

    return click.command(name, help=said)(command)


suspend = _plain("suspend", "suspend", "Stop shipping MACHINE; writes are still captured.")
resume = _plain("resume", "resume", "Ship MACHINE again after it was suspended.")
resync = _plain("resync", "resync", "Compare MACHINE with its vault and ship what differs, now.")
retry = _plain("retry", "retry", "Try again now to ship MACHINE, without waiting for the next try.")
reprotect = _plain(
    "reprotect", "reprotect", "After a failover of MACHINE: protect what runs at the other side."
)
failback = _plain("failback", "failback", "Bring MACHINE back to where it was before a failover.")
migrate = _plain("migrate", "migrate", "Fail MACHINE over for good, with no way back.")


@click.command()
@operation_options
@click.option("--at", help="Begin initial replication at this time, up to 7 days ahead.")
@click.option("--by-hand", is_flag=True, help="Begin initial replication only when it is asked.")
def protect(client: Client, machine: str, at: str | None, by_hand: bool, **how: Any) -> None:
    """Begin to protect MACHINE, which the configuration must name."""
    parameters: dict[str, Any] = {"start": "by hand"} if by_hand else {}
    if at is not None:
        if by_hand:
            raise UsageError("--at does not go with --by-hand", operation="protect")
        parameters["at_us"] = _time(at)
    operate(client, "protect", machine, parameters, **how)


def _time(text: str) -> int:
    from pipeline.cli.moment import parse_at

    found, remark = parse_at(text)
    if not isinstance(found, str):
        raise UsageError("is not a time", operation="--at", subject=text)
    if remark:
        say(remark)
    return int(found.removeprefix("@"))


@click.command()
@operation_options
@click.option("--keep-data", "data", flag_value="keep", help="What the vault holds stays.")
@click.option("--delete-data", "data", flag_value="delete", help="And is deleted, there, for good.")
@click.option("--vault", "url", callback=_reached, help="With --delete-data: URL of the vault.")
@click.option("--key", help="With --delete-data: the operator's private key file.")
@click.option("--trust", help="With --delete-data: trust file, if the key does not know the vault.")
@click.option("--yes-delete", metavar="MACHINE", help="Delete without asking: the machine's name.")
def unprotect(
    client: Client,
    machine: str,
    data: str | None,
    url: str | None,
    key: str | None,
    trust: str | None,
    yes_delete: str | None,
    **how: Any,
) -> None:
    """Protect MACHINE no longer. Say what becomes of its data in the vault.

    --keep-data asks the daemon. --delete-data asks no daemon, and none may write any more: it takes
    --vault, --key and credentials that may delete, and removes every point of the machine.
    """
    if data is None:
        raise UsageError(
            "what is to become of its data?",
            operation="unprotect",
            subject=machine,
            hint="--keep-data or --delete-data",
        )
    if data == "keep":
        operate(client, "unprotect", machine, {"data": data}, **how)
        return
    if url is None or key is None:
        raise UsageError(
            "a daemon may only add to a vault: deleting takes the operator's key",
            operation="unprotect",
            subject=machine,
            hint="--keep-data first; then --delete-data --vault URL --key OPERATOR.key",
        )
    from pipeline.cli.delete import delete_data

    delete_data(
        machine, (url, key, trust), yes_delete, dry_run=how["dry_run"], as_json=how["as_json"]
    )
