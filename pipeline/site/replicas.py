"""The live replicas of a site: where each should be, bringing it there, giving its disks away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import trio

from pipeline.assembly import read_pins, vault_store
from pipeline.config.units import format_duration
from pipeline.failover.ground import Ground, stand_on
from pipeline.recovery import Access, with_problems
from pipeline.site.config import Replica as Settings
from pipeline.site.config import SiteConfig
from stages.errors import (
    BrokenChain,
    IllegalOperation,
    KeyFailure,
    NotFound,
    StateLocked,
)
from stages.ports import Files, Machine
from stages.recover.opened import Group
from stages.recover.points import Point, choose
from stages.replica.bounds import Bounds, Brought
from stages.replica.record import Record, Status
from stages.replica.replica import Replica
from stages.vault import layout
from stages.vault.failover_state import Phase
from stages.vault.keyfile import MAX_SIZE, decode_private, needs_passphrase

_LOCK_SECONDS = 60.0  # for which giving waits until a round has ended
_PATIENCE = 2.0  # seconds of blips of the vault's disk
_GOING_ON = (Phase.OPEN, Phase.COMMITTED)


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a replica should be: the newest point, or ``failover``: that of the failover; and what
    a person should know about the choice."""

    vault: bytes
    group: Group
    point: Point
    failover: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a round has seen of a group: its newest commit, the number of the next failover record.
    Nothing else of it can move the goal; a new group with the machine's name can."""

    group: bytes
    tail: int
    next_failover: int


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did: where the files were brought, and what was ``seen`` of the group (None:
    there is more to do); ``notes`` are about the choice of the point."""

    brought: Brought
    seen: Seen | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """What became of a replica: disks by path, at a point, and what to know about its choice."""

    machine: str
    seq: int
    stamp: int
    written: int
    paths: tuple[str, ...]
    notes: tuple[str, ...]


def settings_of(config: SiteConfig, machine: str) -> Settings:
    """A replica of the configuration. Raises ``NotFound``."""
    found = config.replicas.get(machine)
    if found is None:
        known = ", ".join(config.replicas) or "none"
        raise NotFound(
            "this site keeps no replica of it",
            operation="replica",
            subject=machine,
            hint=f"replicas in the configuration: {known}",
        )
    return found


def access_of(ports: Machine, config: SiteConfig, settings: Settings) -> Access:
    """How a replica opens its vault: as a folder, with its own key. Blocks.

    Raises ``KeyFailure``, for the operator's key too: this machine is on a network.
    """
    secret = _read(ports.files, settings.key)
    if needs_passphrase(secret, settings.key):
        raise KeyFailure(
            "a replica's key has no passphrase: nobody is there to type it",
            operation="open replica",
            subject=settings.key,
            hint="'backstay keygen --no-passphrase' makes one; admit it with 'init --recipient'",
        )
    key = decode_private(secret, None, settings.key)
    pins = read_pins(ports, settings.trust)
    if key.signer.public in {pin.operator for pin in (*key.pins, *pins)}:
        raise KeyFailure(
            "this is the operator's key: it could do far more than follow",
            operation="open replica",
            subject=settings.key,
            hint="give the replica a key of its own, a recipient of the vault, and move this away",
        )
    return Access(ports, f"file:{config.vaults[settings.vault].path}", key, pins)


def _read(files: Files, path: str) -> bytes:
    try:
        return files.read(path, MAX_SIZE)
    except OSError as error:
        raise KeyFailure(
            f"the private key cannot be read: {error.strerror or error}",
            operation="open replica",
            subject=path,
            hint="it must be readable for the user that runs the site",
        ) from None


async def bring_up(ports: Machine, access: Access, settings: Settings, machine: str) -> Round:
    """One round: bring the files to where they should be. Raises what ``Replica.bring`` does,
    ``NotFound`` while there is no point yet."""
    async with stand_on(access, machine) as ground:
        goal = await _goal(ground, machine)
        seen = Seen(goal.group.scope.group, goal.group.tail, ground.log.next_number)
        replica = await _opened(ports, settings, goal, machine)
        try:
            brought = await replica.bring(goal.group, goal.point)
        finally:
            replica.close()
        return Round(brought, seen if brought.at.seq == goal.point.seq else None, goal.notes)


async def is_news(access: Access, seen: Seen) -> bool:
    """Has the group another commit or failover record than was seen? Two looks, no list."""
    store = vault_store(access.ports, access.url, patience=_PATIENCE)
    try:
        for key in (
            layout.commit(seen.group, seen.tail + 1),
            layout.failover(seen.group, seen.next_failover),
        ):
            if await store.info(key) is not None:
                return True
        return False
    finally:
        await store.aclose()


async def promote(ports: Machine, config: SiteConfig, machine: str, to: str) -> Given:
    """Bring a replica to the point of its machine's failover, and give its disks to a folder of
    the same file system. Given again it goes on where it was.

    Raises ``IllegalOperation`` if the machine is not failed over, ``TargetError`` if something
    would be overwritten or copied.
    """
    settings = settings_of(config, machine)
    access = await ports.offload.run(partial(access_of, ports, config, settings))
    async with stand_on(access, machine) as ground:
        goal = await _goal(ground, machine)
        if not goal.failover:
            raise _not_failed_over(machine, ground.state.phase, access.url)
        replica = await _waited_for(ports, settings, goal, machine)
        try:
            written = 0
            while not _is_given(replica.record):
                brought = await replica.bring(goal.group, goal.point)
                written += brought.written
                if brought.at.seq == goal.point.seq:
                    break
            paths = await replica.give(to)
            at = replica.record.at if replica.record is not None else None
            assert at is not None  # noqa: S101 - given
            return Given(machine, at.seq, at.stamp, written, tuple(paths), goal.notes)
        finally:
            replica.close()


async def drop(ports: Machine, config: SiteConfig, machine: str) -> None:
    """Remove a replica's files, whatever their record says; the site, if it runs, begins it anew.

    Raises ``IllegalOperation`` if they are being given away.
    """
    settings = settings_of(config, machine)
    if await ports.offload.run(partial(ports.files.stat, settings.path)) is not None:
        await Replica.drop(ports, settings.path)


async def _goal(ground: Ground, machine: str) -> Goal:
    """While a failover stands, its point: so that nothing is left to do when the disks are wanted.
    Otherwise the newest complete consistent one."""
    state, group, opened = ground.state, ground.group, ground.vault
    vault = opened.charter.vault
    if state.phase not in _GOING_ON or state.point is None:
        choice = with_problems(await choose(group, machine, None), opened, group)
        return Goal(vault, group, choice.point, failover=False, notes=choice.notes)
    ground.check_sure()
    choice = with_problems(await choose(group, machine, state.point.seq), opened, group)
    point = choice.point
    if point.digest != state.point.digest:
        raise BrokenChain(
            "is not the commit that the machine was failed over to",
            operation="replica",
            subject=f"{machine} #{point.seq}",
        )
    return Goal(vault, group, point, failover=True, notes=choice.notes)


def _not_failed_over(machine: str, phase: Phase, url: str) -> IllegalOperation:
    return IllegalOperation(
        f"its disks are given to whoever runs it, and the machine is '{phase}'",
        operation="replica promote",
        subject=machine,
        hint=f"first, with the operator's key: backstay failover unplanned {machine} "
        f"--vault {url} --key KEY",
    )


async def _opened(ports: Machine, settings: Settings, goal: Goal, machine: str) -> Replica:
    bounds = Bounds(size=settings.limit or 0)
    return await Replica.open(ports, settings.path, goal.vault, machine, bounds)


async def _waited_for(ports: Machine, settings: Settings, goal: Goal, machine: str) -> Replica:
    """The replica once the site's own round has ended."""
    until = trio.current_time() + _LOCK_SECONDS
    while True:
        try:
            return await _opened(ports, settings, goal, machine)
        except StateLocked as error:
            if trio.current_time() >= until:
                error.hint = (
                    f"it is being brought to a point for more than {format_duration(_LOCK_SECONDS)}"
                    ": wait ('backstay site replica list'), or stop 'backstay site' and give this "
                    "again"
                )
                raise
        await ports.clock.sleep(0.2)


def _is_given(found: Record | None) -> bool:
    return found is not None and found.status in (Status.GIVING, Status.GIVEN)
