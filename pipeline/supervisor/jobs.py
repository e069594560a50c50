"""The jobs that the supervisor carries out itself: enabling, watching scans, marks, disabling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline.assembly import read_pins, vault_store
from pipeline.config.model import Disk
from pipeline.control.model import JobKind, State
from pipeline.lifecycle.events import Happening
from pipeline.lifecycle.rules import start_time
from pipeline.supervisor.work import Carrier, Carriers, Outcome, Overtaken, Work
from stages.errors import KeyFailure, SourceBusy, SourceMissing, UsageError
from stages.ports import Machine
from stages.store.port import ObjectStore
from stages.vault.charter import check_pin, load

MAX_LABEL = 200


async def enable(work: Work) -> Outcome:
    """Check what protection needs, and say when initial replication begins."""
    if work.record.situation.state is State.CHECKING:
        await _check(work)
        await work.happen(Happening.PREREQUISITES_PASSED)
    if not work.config.machine(work.machine).live and work.parameters.get("declared"):
        return Outcome(None, "is scanned at rest: a person starts it when nothing writes there")
    if work.parameters.get("start") == "by hand":
        return Outcome(None, "waits to be started")
    at = work.parameters.get("at_us")
    when = None if at is None else start_time(int(at), work.ports.clock.wall_us(), work.machine)
    if when is None:
        return Outcome(Happening.START_DUE)
    return Outcome(Happening.START_SCHEDULED, "begins later", {"start_us": when}, when)


async def _check(work: Work) -> None:
    """The disks, the trust file, and, if a person asked for it, that the vault answers and is the
    one that is meant. A machine that the configuration declares is enabled although its vault is
    away: that heals by itself."""
    machine = work.config.machine(work.machine)
    await work.task("disks")
    for name, disk in machine.disks.items():
        await work.ports.offload.run(partial(_look_at, work.ports, f"{work.machine}/{name}", disk))
    await work.task("trust")
    vault = work.config.vault_of(machine)
    pins = await work.ports.offload.run(lambda: read_pins(work.ports, vault.trust))
    if not work.parameters.get("declared"):
        await work.task("vault")
        store = vault_store(work.ports, vault.address, patience=0.0)
        try:
            await _is_the_one(store, pins, vault.trust)
        finally:
            await store.aclose()


def _look_at(ports: Machine, name: str, disk: Disk) -> None:
    stat = ports.files.stat(disk.path)
    if stat is None or not (stat.is_file or stat.is_block):
        raise SourceMissing(
            "does not exist" if stat is None else "is neither a file nor a block device",
            operation="enable protection",
            subject=f"{name}: {disk.path}",
        )


async def _is_the_one(store: ObjectStore, pins: tuple[Any, ...], trust: str) -> None:
    charter = await load(store, None)
    pin = next((pin for pin in pins if pin.vault == charter.vault), None)
    if pin is None:
        raise KeyFailure(
            f"{trust} does not know vault {charter.vault.hex()}",
            operation="enable protection",
            subject=store.url,
            hint="give the .pub file that 'backstay init' wrote for this vault as 'trust'",
        )
    check_pin(charter, pin, store.url)


async def replicate(work: Work) -> Outcome:
    """Watch initial replication, until the vault has a consistent point."""
    if not work.config.machine(work.machine).live:
        return await scan_at_rest(work, Happening.SCAN_FINISHED)
    while True:
        _still(work, State.INITIAL_REPLICATION)
        await _show_scan(work)
        consistent = work.said.get("state") == "committed" and work.said.get("consistent")
        if consistent and work.look.capture == "replicating":
            return Outcome(Happening.SCAN_FINISHED, f"point #{work.said['seq']}")
        await work.changed()


async def finalize(_: Work) -> Outcome:
    """The machine is recoverable from here on: its record is in the vault, with its first point."""
    return Outcome(Happening.FINALIZED)


async def resynchronize(work: Work) -> Outcome:
    """Watch a resync, until points are consistent again."""
    if not work.config.machine(work.machine).live:
        return await scan_at_rest(work, Happening.GAP_CLOSED)
    while True:
        _still(work, State.RESYNCHRONIZING)
        await _show_scan(work)
        if not work.record.compare and work.look.capture == "replicating":
            return Outcome(Happening.GAP_CLOSED)
        await work.changed()


async def mark(work: Work) -> Outcome:
    """A recovery point now; the job ends when it is in the vault. Raises ``SourceBusy``."""
    if not work.config.machine(work.machine).live:
        return await scan_at_rest(work, None)
    made = await work.intake(
        "mark", machine=work.machine, label=str(work.parameters.get("label", ""))
    )
    if not made["seq"]:
        raise SourceBusy(
            f"the mark is lost: {made['reason']}",
            operation="mark",
            subject=work.machine,
            hint="mark again when it is replicating",
        )
    return Outcome(None, f"point #{made['seq']} ({made['grade']})", made)


async def scan_at_rest(work: Work, happening: Happening | None) -> Outcome:
    """Compare its disks with the vault and ship what differs, as ``run --once`` does.

    Raises ``SourceBusy`` if they changed meanwhile: the point is there, and mixes moments.
    """
    # Only machines that are scanned need it here: it brings all that captures and ships.
    from pipeline.protect import protect_once

    made = await protect_once(work.ports, work.config, work.machine, work.state)
    noted = made.as_fields() | {"at": work.ports.clock.wall_us()}
    notes = ["last-run", "last-point"] if made.consistent else ["last-run"]
    for note in notes:
        path = f"machines/{work.machine}/{note}"
        await work.ports.offload.run(partial(work.state.note, path, noted))
    if not made.consistent:
        raise SourceBusy(
            f"changed while it was read: point #{made.seq} mixes moments",
            operation="protect",
            subject=work.machine,
            hint="run this while nothing writes there, or configure a `snapshot` hook",
        )
    return Outcome(happening, f"point #{made.seq} ({made.grade})", {"seq": made.seq})


async def disable(_: Work) -> Outcome:
    """Nothing is shipped any more; what the vault has stays."""
    return Outcome(Happening.DISABLED, "the vault keeps all recovery points")


def keeps_data(parameters: Mapping[str, Any]) -> None:
    """A writer cannot delete, the vault's points stay: ``UsageError`` for anything else."""
    if parameters.get("data", "keep") != "keep":
        raise UsageError(
            "this daemon may only add to the vault, not delete from it",
            operation="unprotect",
            hint="keep the data; then, with a person's credentials: 'backstay unprotect MACHINE "
            "--delete-data --vault URL --key KEY'",
        )


def has_label(parameters: Mapping[str, Any]) -> None:
    """``label`` is short: else ``UsageError``."""
    if len(str(parameters.get("label", ""))) > MAX_LABEL:
        raise UsageError(f"a label has at most {MAX_LABEL} characters", operation="mark")


def built_in() -> Carriers:
    """The jobs that every daemon can carry out."""
    found = Carriers()
    found.add(
        JobKind.ENABLE_PROTECTION,
        Carrier(
            enable,
            failed=Happening.PREREQUISITES_FAILED,
            states=frozenset({State.CHECKING, State.READY}),
        ),
    )
    found.add(
        JobKind.INITIAL_REPLICATION,
        Carrier(replicate, failed=None, beside=True, states=frozenset({State.INITIAL_REPLICATION})),
    )
    found.add(
        JobKind.FINALIZE_PROTECTION,
        Carrier(finalize, cancellable=False, states=frozenset({State.FINALIZING})),
    )
    found.add(
        JobKind.RESYNCHRONIZE,
        Carrier(
            resynchronize,
            failed=Happening.RESYNC_CANCELLED,
            cancelled=Happening.RESYNC_CANCELLED,
            beside=True,
            states=frozenset({State.RESYNCHRONIZING}),
        ),
    )
    found.add(
        JobKind.MARK,
        Carrier(mark, failed=None, cancelled=None, resumable=False, beside=True, check=has_label),
    )
    found.add(
        JobKind.DISABLE,
        Carrier(disable, cancellable=False, states=frozenset({State.DISABLING}), check=keeps_data),
    )
    return found


def _still(work: Work, state: State) -> None:
    """A watcher has nothing to watch any more when the machine went another way."""
    now = work.record.situation
    if now.state is not state:
        critical = now.state is State.CRITICAL
        raise Overtaken(now, work.record.problem if critical else None)


async def _show_scan(work: Work) -> None:
    row = work.look.row
    if row is not None and row["scan_total"]:
        done, total = int(row["scan_done"]), int(row["scan_total"])
        await work.progress(100.0 * done / total, done=done, total=total, what=work.look.capture)
