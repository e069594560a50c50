"""Protect one machine once: compare its disks with the vault, ship what differs, make a point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

from pipeline.assembly import open_writer
from pipeline.config.model import Config
from pipeline.config.model import Disk as DiskConfig
from pipeline.config.model import Machine as MachineConfig
from pipeline.hands import holding
from pipeline.hooks import held_still
from pipeline.line import Line, build_line
from pipeline.state import StateFolder
from stages.capture.source import ScanDisk
from stages.errors import SourceMissing, SourceShrunk
from stages.model import Disk
from stages.ports import Machine
from stages.ship.group import found_group, record_machine
from stages.ship.ledger import Ledger
from stages.ship.session import LogSession
from stages.ship.trouble import in_words
from stages.stage import crew
from stages.usage import bottleneck, channel_shares, stage_shares


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did for one machine. Bytes; ``stamp`` µs of the new point.

    ``stages`` and ``channels``: as ``stages.usage`` gives them, of the time that the stages ran;
    ``bottleneck``: the stage that was busiest.
    """

    machine: str
    group: str
    seq: int
    stamp: int
    grade: str
    consistent: bool
    commits: int
    disk_bytes: int
    read_bytes: int
    changed_bytes: int
    zero_bytes: int
    deduplicated_bytes: int
    stored_bytes: int
    seconds: float
    stages: dict[str, dict[str, float]]
    channels: dict[str, dict[str, float]]
    bottleneck: str | None

    def as_fields(self) -> dict[str, object]:
        """For JSON and for the state folder."""
        return asdict(self)


async def protect_once(
    ports: Machine,
    config: Config,
    name: str,
    state: StateFolder,
    *,
    accept_shrink: bool = False,
    watch: Callable[[Line], None] | None = None,
) -> Outcome:
    """One pass over a machine: afterwards everything it held is a recovery point in its vault.

    ``watch`` gets the running line, for progress. Interrupted anywhere, the next run goes on from
    what is committed. Raises the errors of the stages, by their class.
    """
    # Disks, hooks and stores put theirs into words themselves: what is left is the state's.
    with in_words("keep state", state.path), holding(ports.files, state, name):
        state.finish_exchange(name)
        return await _protect(ports, config, name, state, accept_shrink=accept_shrink, watch=watch)


async def _protect(
    ports: Machine,
    config: Config,
    name: str,
    state: StateFolder,
    *,
    accept_shrink: bool,
    watch: Callable[[Line], None] | None,
) -> Outcome:
    started = ports.clock.monotonic()
    machine = config.machine(name)
    async with AsyncExitStack() as stack:
        writer, ledger, identity = await open_writer(ports, config, name, state)
        stack.callback(ledger.close)
        stack.push_async_callback(writer.store.aclose)
        session = LogSession(writer, ledger)
        writer.check_admitted()
        disks = tuple(machine.disks.items())
        ready = {disk_name: disk for disk_name, disk in disks if disk.snapshot is None}
        await _survey(ports, ledger, name, ready, accept_shrink=accept_shrink)  # before any put
        await found_group(writer, identity.digest_key)
        await session.open()
        still = await stack.enter_async_context(held_still(name, disks))
        targets = await _targets(session, name, machine, accept_shrink=accept_shrink)
        line = build_line(ports, config, machine, session, identity, targets, snapshot=still)
        if watch is not None:
            watch(line)
        began = ports.clock.monotonic()
        await run_line(line)
        ran = ports.clock.monotonic() - began
        await ports.offload.run(ledger.checkpoint_state)
        return _outcome(name, line, session, ports.clock.monotonic() - started, ran)


async def run_line(line: Line) -> None:
    """Run all stages to the end of their input; the first error ends them all."""
    async with crew() as nursery:
        for stage in line.stages:
            nursery.start_soon(stage.run)


async def _targets(
    session: LogSession, name: str, machine: MachineConfig, *, accept_shrink: bool
) -> list[ScanDisk]:
    """The disks with their numbers; a change of names or sizes becomes a machine record."""
    ledger = session.ledger
    ports = session.writer.machine
    found = await _survey(ports, ledger, name, machine.disks, accept_shrink=accept_shrink)
    if not ledger.machine or tuple(ledger.disks.values()) != tuple(found):
        await record_machine(session, name, tuple(found))
    return [ScanDisk(disk, machine.disks[disk.name].path) for disk in found]


async def _survey(
    ports: Machine,
    ledger: Ledger,
    name: str,
    disks: Mapping[str, DiskConfig],
    *,
    accept_shrink: bool,
) -> list[Disk]:
    """Number and size of each disk. Raises ``SourceMissing`` or ``SourceShrunk``."""
    numbers = {disk.name: disk for disk in ledger.disks.values()}
    next_number = ledger.next_disk
    found: list[Disk] = []
    for disk_name, disk in disks.items():
        size = await _size(ports, name, disk_name, disk.path)
        known = numbers.get(disk_name)
        if known is None:
            found.append(Disk(next_number, disk_name, size))
            next_number += 1
            continue
        if size < known.size and not accept_shrink:
            raise SourceShrunk(
                f"has {size} bytes, the vault knows it with {known.size}",
                operation="protect",
                subject=f"{name}/{disk_name}: {disk.path}",
                hint="if it was made smaller on purpose: backstay run --once --accept-shrink",
            )
        found.append(Disk(known.number, disk_name, size))
    return found


async def _size(ports: Machine, name: str, disk: str, path: str) -> int:
    try:
        found = await ports.offload.run(lambda: ports.files.stat(path))
    except OSError as error:
        raise SourceMissing(
            error.strerror or str(error),
            operation="protect",
            subject=f"{name}/{disk}: {path}",
            hint="run as a user that may read it",
        ) from None
    if found is None or not (found.is_file or found.is_block):
        raise SourceMissing(
            "does not exist" if found is None else "is neither a file nor a block device",
            operation="protect",
            subject=f"{name}/{disk}: {path}",
            hint="is it mounted or attached? Paths in the config count from the config's folder",
        )
    return found.size


def _outcome(name: str, line: Line, session: LogSession, seconds: float, ran: float) -> Outcome:
    newest = line.ship.newest
    progress = line.scan.progress()
    stages = stage_shares(line.statistics(), ran)
    tail = session.ledger.tail
    return Outcome(
        machine=name,
        group=session.writer.scope.group.hex(),
        seq=tail.seq,
        stamp=tail.stamp,
        grade=newest.grade if newest else "",
        consistent=bool(newest and newest.consistent),
        commits=line.ship.commits,
        disk_bytes=progress.total,
        read_bytes=progress.read,
        changed_bytes=progress.changed,
        zero_bytes=progress.zero,
        deduplicated_bytes=progress.deduplicated,
        stored_bytes=line.ship.statistics().bytes_out,
        seconds=seconds,
        stages=stages,
        channels=channel_shares((one.statistics() for one in line.channels), ran),
        bottleneck=bottleneck(stages),
    )
