"""``run``, and what ``status`` shows where no daemon answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.console import (
    emit,
    end_with,
    fail,
    first_failure,
    human,
    json_option,
    rate,
    run_async,
    say,
    tell,
)
from pipeline.cli.live import live_row, live_rows, run_live
from stages.errors import BackstayError, SourceBusy, UsageError
from stages.recover.ahead import seconds_ahead

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.protect import Outcome
    from pipeline.state import StateFolder
    from stages.ports import Machine

_UNWELL = "check the disk under the state folder: once it can be written again all heals by itself"


@click.command()
@click.argument("config", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.option("--once", is_flag=True, help="Stop when everything is protected and shipped.")
@click.option("--machine", "only", multiple=True, help="Only this machine (repeatable).")
@click.option("--accept-shrink", is_flag=True, help="A disk that became smaller is no error.")
@click.option(
    "--drain",
    default=30.0,
    type=click.FloatRange(min=0),
    help="Seconds to ship what is left when it is stopped.",
    show_default=True,
)
@click.option(
    "--unchanged",
    metavar="MACHINE/DISK",
    multiple=True,
    help="Nobody wrote to this disk since it was stopped: do not compare it (repeatable).",
)
@json_option
def run(
    config: str,
    once: bool,
    only: tuple[str, ...],
    accept_shrink: bool,
    unchanged: tuple[str, ...],
    drain: float,
    as_json: bool,
) -> None:
    """Protect the machines of CONFIG.

    Disks with "capture: nbd" are served on their sockets and every write is captured, until SIGTERM
    ends it. With --once, disks with "capture: scan" are compared with the vault, what differs is
    shipped, and a recovery point is made. A machine that fails does not keep the others from being
    protected.
    """
    if once:
        if unchanged:
            raise UsageError("--unchanged does not go with --once", operation="run")
        with _helpers_ahead():
            _run_once(config, only, as_json=as_json, accept_shrink=accept_shrink)
        return
    if only or accept_shrink:
        raise UsageError("--machine and --accept-shrink go with --once", operation="run")
    from pipeline.config import load

    run_live(load(config), drain, unchanged)


@contextmanager
def _helpers_ahead() -> Iterator[None]:
    """Processes that hash disks are there when they are wanted: made before this one has imported
    what they do not need."""
    from stages.capture.worker import start_ahead
    from stages.system_workers import forget_ahead

    try:
        start_ahead(min(2, os.cpu_count() or 1))
        yield
    finally:
        forget_ahead()


def _run_once(config: str, only: tuple[str, ...], *, as_json: bool, accept_shrink: bool) -> None:
    from pipeline.config import load
    from pipeline.state import StateFolder
    from stages.system import this_machine

    loaded = load(config)
    ports = this_machine()
    names = list(only) or list(loaded.machines)
    for name in names:
        _require_at_rest(loaded, name)
    state = StateFolder.open(ports, loaded.daemon.state)
    results: list[dict[str, Any]] = []
    codes: list[int] = []
    try:
        for name in names:
            found = _protect(ports, loaded, name, state, accept_shrink)
            complaint = found if isinstance(found, BackstayError) else _complaint(found)
            if isinstance(found, BackstayError):
                results.append(_failure(name, found))
            else:
                results.append(found.as_fields())
                if not as_json:
                    tell(_summary(found), leave=False)
            if complaint is not None:
                codes.append(fail(complaint, as_json))
            unkept = _keep(ports, state, name, results[-1])
            if unkept is not None and complaint is None:
                codes.append(fail(unkept, as_json))
    finally:
        state.close()
    if as_json:
        emit(True, {"machines": results}, "")
    if codes:
        end_with(codes[0])


def _require_at_rest(config: Config, name: str) -> None:
    if config.machine(name).live:
        raise UsageError(
            "its disks are captured live",
            operation="run --once",
            subject=name,
            hint="run it without --once; or name the others with --machine",
        )


def _complaint(outcome: Outcome) -> BackstayError | None:
    """What is wrong although everything was shipped: nothing may have written meanwhile."""
    if outcome.grade != "fuzzy":
        return None
    return SourceBusy(
        f"changed while it was read: point #{outcome.seq} mixes moments and is chosen only by "
        "its number",
        operation="protect",
        subject=outcome.machine,
        hint="run this while nothing writes there, or configure a `snapshot` hook",
    )


def _keep(
    ports: Machine, state: StateFolder, name: str, result: dict[str, Any]
) -> BackstayError | None:
    """Note for ``status`` how a run ended, and the newest point that can be relied on."""
    noted = result | {"at": ports.clock.wall_us()}
    try:
        state.note(f"machines/{name}/last-run", noted)
        if result.get("consistent"):
            state.note(f"machines/{name}/last-point", noted)
    except BackstayError as error:
        return error
    return None


def _protect(
    ports: Machine, config: Config, name: str, state: StateFolder, accept_shrink: bool
) -> Outcome | BackstayError:
    from functools import partial

    from pipeline.protect import protect_once

    work = partial(protect_once, ports, config, name, state, accept_shrink=accept_shrink)
    try:
        return run_async(work)
    except (BackstayError, BaseExceptionGroup) as raised:
        failure = first_failure(raised)
        if not isinstance(failure, BackstayError):
            raise
        return failure


def _failure(name: str, error: BackstayError) -> dict[str, Any]:
    return {
        "machine": name,
        "error": type(error).__name__,
        "message": str(error),
        "hint": error.hint,
        "recoverable": error.recoverable,
        "exit_code": error.exit_code,
    }


def _summary(outcome: Outcome) -> str:
    point = "consistent" if outcome.consistent else f"{outcome.grade}, not consistent"
    return (
        f"{outcome.machine}: point #{outcome.seq} ({point}): "
        f"{human(outcome.disk_bytes)} of disk compared in {outcome.seconds:.1f} s, "
        f"{human(outcome.changed_bytes)} changed, "
        f"{human(outcome.stored_bytes)} stored "
        f"({rate(outcome.read_bytes, outcome.seconds)} read)"
    )


def folder_status(config: str, as_json: bool) -> None:
    """Show, for each machine of a configuration, its newest point and how the last run ended: what
    the state folder knows, and intake if it runs."""
    from pipeline.config import load
    from pipeline.state import StateFolder
    from stages.system import this_machine

    ports = this_machine()
    loaded = load(config)
    state = StateFolder.open(ports, loaded.daemon.state, lock=False)
    now = ports.clock.wall_us()
    live = live_rows(state) if any(m.live for m in loaded.machines.values()) else {}
    unwell = any(found["unlogged"] for found in live.values())  # to read there might hang
    if unwell:
        rows, drill = [_unread(name, live, now) for name in loaded.machines], None
    else:
        drill = state.noted("drill")
        rows = [
            _row(name, state, now)
            | {"state_bytes": state.used_by(name)}
            | (_live(name, state, live, now) if machine.live else {})
            for name, machine in loaded.machines.items()
        ]
    drilled = "never: run 'backstay key drill'" if drill is None else _age(drill["at"], now)
    if unwell:
        drilled = "unknown: the state folder's disk is not well"
    wide = max(20, *(len(row["machine"]) for row in rows))
    text = [f"{'MACHINE':{wide}} {'POINT':>8} {'AGE':>12} {'STATE':>10}  LAST RUN"]
    text += [
        f"{row['machine']:{wide}} {row['point'] or '-':>8} {row['age']:>12} "
        f"{human(row['state_bytes']):>10}  {row['last_run']}"
        for row in rows
    ]
    text.append(f"key drilled: {drilled}")
    emit(as_json, {"machines": rows, "key_drilled": drilled}, "\n".join(text))
    if not unwell and any(row["point"] is None for row in rows):
        say("some machines have no recovery point yet")


def _row(name: str, state: StateFolder, now: int) -> dict[str, Any]:
    last = state.noted(f"machines/{name}/last-run")
    point = state.noted(f"machines/{name}/last-point")
    row = {
        "machine": name,
        "point": None if point is None else f"#{point['seq']}",
        "stamp": None if point is None else point["stamp"],
        "age": "-" if point is None else _age(int(point["stamp"]), now),
    }
    if last is None:
        return row | {"last_run": "never run"}
    ended = "succeeded" if last.get("consistent") else "made no consistent point"
    return row | {
        "last_run": f"failed: {last['message']}" if "error" in last else ended,
        "last_run_at": datetime.fromtimestamp(last["at"] / 1e6, UTC).isoformat(),
        "hint": last.get("hint", ""),
    }


def _unread(name: str, live: dict[str, dict[str, Any]], now: int) -> dict[str, Any]:
    """What is known of a machine while the state folder's disk is not well."""
    row = {"machine": name, "point": None, "stamp": None, "age": "-", "state_bytes": 0}
    if name not in live:
        return row | {"last_run": "unknown: the state folder's disk is not well", "hint": ""}
    return row | live_row(live[name], None, now) | {"hint": _UNWELL}


def _live(
    name: str, state: StateFolder, live: dict[str, dict[str, Any]], now: int
) -> dict[str, Any]:
    return live_row(live.get(name), state.noted(f"machines/{name}/delivery"), now)


def _age(stamp: int, now: int) -> str:
    ahead = seconds_ahead(stamp, now)
    seconds = int(ahead) or max(0, now - stamp) // 1_000_000
    which = "ahead" if ahead else "ago"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {which}"
    return f"{seconds} s {which}"
