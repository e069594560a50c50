"""Opening the machines that intake captures: disks, limits, and whether they may be served."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from functools import partial

import trio

from pipeline import logs
from pipeline.config.model import Config
from pipeline.config.model import Machine as MachineConfig
from pipeline.hands import Hand, take
from pipeline.intake import MachineIntake
from pipeline.intake_disks import IntakeDisk, journal_limit
from pipeline.notice import source_notices
from pipeline.state import StateFolder
from stages import durable
from stages.capture.activity.witness import within
from stages.capture.group.limits import Limits
from stages.capture.live.scrub import MISMATCH, Mismatch
from stages.errors import BackstayError, StateLocked
from stages.ports import Machine
from stages.stage import crew
from stages.system import this_machine

AT_ONCE = 32  # machines that are opened or started
THREADS = 8


def disks_of(name: str, machine: MachineConfig, vouched: Collection[str] = ()) -> list[IntakeDisk]:
    """A machine's disks as intake takes them."""
    return [
        IntakeDisk(disk_name, disk.path, disk.listen or "", f"{name}/{disk_name}" in vouched)
        for disk_name, disk in machine.disks.items()
    ]


def closed_note(name: str) -> str:
    """Where it is kept why no client may come to a machine's disks."""
    return f"closed/{name}"


async def failed_over(
    ports: Machine, config: Config, state: StateFolder, names: Collection[str]
) -> dict[str, BackstayError]:
    """The machines whose listeners stay closed, because production is elsewhere (R14)."""
    found: dict[str, BackstayError] = {}
    for name, looked in (await source_notices(ports, config, state, names)).items():
        if looked.notice is not None:
            found[name] = looked.notice.error("open listener", name)
        elif looked.trouble:
            said = f"{name}: not known whether it was failed over, going on: {looked.trouble}"
            print(said, file=sys.stderr, flush=True)  # noqa: T201
    return found


async def open_all(
    ports: Machine,
    config: Config,
    state: StateFolder,
    names: Sequence[str],
    vouched: frozenset[str],
) -> tuple[list[MachineIntake], dict[str, BackstayError]]:
    """These machines, in their order, and those that a command has now; each waits for the disk of
    the state folder."""
    opened: dict[str, MachineIntake] = {}
    taken: dict[str, BackstayError] = {}

    async def open_one(name: str) -> None:
        async with limit:
            try:
                opened[name] = await open_machine(ports, config, state, name, vouched)
            except StateLocked as locked:
                taken[name] = locked

    limit = trio.Semaphore(AT_ONCE)
    async with crew() as nursery:
        for name in names:
            nursery.start_soon(open_one, name)
    return [opened[name] for name in names if name in opened], taken


async def open_machine(
    ports: Machine,
    config: Config,
    state: StateFolder,
    name: str,
    vouched: Collection[str] = (),
) -> MachineIntake:
    """One machine, it and its disks ours alone. Raises what keeps it from being captured;
    ``StateLocked``: a command has it, which exchanges its record."""
    held = await trio.to_thread.run_sync(lambda: take(ports.files, state, name, [Hand.INTAKE]))
    try:
        intake = await _open(ports, config, state, name, vouched)
    except BaseException:
        held.close()
        raise
    intake.at_end = held.close
    return intake


async def _open(
    ports: Machine, config: Config, state: StateFolder, name: str, vouched: Collection[str]
) -> MachineIntake:
    machine = config.machine(name)
    folder, disks = state.intake_folder(name), disks_of(name, machine, vouched)
    await trio.to_thread.run_sync(durable.make_dirs, ports.files, folder)
    tuned = config.pipeline_of(machine).cache
    limit = tuned.journal_limit
    limits = Limits(
        journal_limit(ports, folder, disks) if limit == "auto" else int(limit),
        throttle=tuned.when_full == "throttle",
        scrub=scrub_seconds(config, name),
    )
    intake = await MachineIntake.open(
        this_machine(THREADS),  # threads of its own: those of others may hang with their disks
        folder,
        name,
        disks,
        limits,
        witnesses=[within(durable.parent(config.source), name)],
    )
    intake.group.scrub.on_mismatch = partial(_mismatched, name)
    noted = await trio.to_thread.run_sync(state.noted, closed_note(name))
    intake.closed = "" if noted is None else str(noted.get("reason", ""))
    return intake


def _mismatched(name: str, found: Mismatch) -> None:
    """Loudly: it is damage, or somebody writes past the splitter."""
    logs.error(
        MISMATCH,
        f"{name}/{found}: points since an unknown time are wrong there; it is being corrected",
        machine=name,
        disk=found.name,
        first_block=found.blocks[0],
        blocks=len(found.blocks),
    )


def scrub_seconds(config: Config, name: str) -> float:
    """In which everything of a machine is compared again; 0: never."""
    days = config.policy_of(config.machine(name)).scrub_days
    return 0.0 if days == "off" else float(days) * 86400
