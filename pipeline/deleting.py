"""Deleting all that a vault holds of a machine: what it takes, what goes, and doing it.

In two phases, like retention: for each of the machine's groups a signed record first, then the
fence, and only then do objects go, children before what they branch off. Killed anywhere, the same
command, or the next run of a keeper, finishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.founding import check_operator
from pipeline.keeping import indexes
from pipeline.recovery import Access
from stages.errors import (
    UNREADABLE,
    DamagedObject,
    IllegalOperation,
    NotFound,
)
from stages.keeper.decided import decide, is_decided, withdraw
from stages.keeper.erase import Size, erase, size_of
from stages.keeper.survey import time_of
from stages.keeper.times import store_time
from stages.recover.opened import Group, OpenedVault
from stages.vault.deletion import Deletion, put_deletion
from stages.vault.failover_log import load_failovers
from stages.vault.failover_state import Phase
from stages.vault.floor_log import load_holds
from stages.vault.leases import load_leases
from stages.vault.sealing import Scope
from stages.vault.terms import next_epoch

QUIET = 15 * 60.0  # seconds: a daemon makes a commit every ten minutes, whatever its disks do
_OPERATION = "unprotect --delete-data"
_NAMED = 5  # obstacles that an error names


@dataclass(frozen=True, slots=True)
class Going:
    """A group that goes: its ``points`` that are offered, first and last commit, what it holds."""

    group: bytes
    points: int
    first: int
    last: int
    size: Size


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go, the newest group first. ``begun``: groups whose deletion is on record already
    and of which something is left. ``obstacles``: why nothing goes."""

    machine: str
    groups: tuple[Going, ...]
    begun: tuple[bytes, ...]
    obstacles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """What was planned, and what went."""

    plan: Plan
    gone: Size


async def delete_machine(
    access: Access,
    machine: str,
    host: str,
    by: str,
    confirm: Callable[[Plan], None],
    *,
    dry_run: bool,
) -> Done:
    """Remove all groups of a machine; ``confirm`` hears what goes, and may raise.

    Raises ``KeyFailure`` for a key that is not the operator's, ``IllegalOperation`` where something
    stands in the way, ``NotFound``, ``Damage``, ``StoreDenied``, store errors.
    """
    async with indexes(access) as vault:
        what = "deletes a machine's data"
        check_operator(vault.charter, access.key, access.url, _OPERATION, what)
        return await Deleting(access, vault, machine, host, by).run(confirm, dry_run=dry_run)


class Deleting:
    """One run."""

    def __init__(self, access: Access, vault: OpenedVault, machine: str, host: str, by: str):
        self._access = access
        self._vault = vault
        self._store = vault.store
        self._machine = machine
        self._host, self._by = host, by
        self._now = access.ports.clock.wall_us()

    async def run(self, confirm: Callable[[Plan], None], *, dry_run: bool) -> Done:
        """Plan, ask, record, look again, fence, erase."""
        if not dry_run:
            self._now = await store_time(self._store, self._access.ports)
        mine, others = await self._groups()
        plan = await self._plan(mine, others)
        if dry_run:
            return Done(plan, Size())
        self._refuse(plan.obstacles)
        confirm(plan)
        await self._record(mine)
        await self._look_again(
            [*(group.scope.group for group in mine), *await self._unfenced(plan.begun)]
        )
        gone = Size()
        for gid in (*(group.scope.group for group in mine), *plan.begun):
            await self._fence(gid)
        for gid in (*(group.scope.group for group in mine), *plan.begun):
            part = await erase(self._store, gid)
            gone = Size(gone.objects + part.objects, gone.bytes + part.bytes)
        return Done(plan, gone)

    async def _groups(self) -> tuple[list[Group], list[Group]]:
        """The machine's groups, newest first, and all others. Raises ``Damage`` where a group
        cannot be read: it may be the machine's, or a branch of it."""
        mine: list[Group] = []
        others: list[Group] = []
        problems = self._vault.problems
        problems.clear()
        for group in await self._vault.groups():
            name = ""
            try:
                name = await group.name()
            except UNREADABLE as error:
                problems.append(str(error))
            (mine if name == self._machine else others).append(group)
        if problems:
            raise DamagedObject(
                f"what cannot be read may depend on it: {problems[0]}",
                operation=_OPERATION,
                subject=self._machine,
                hint="'backstay vault check' and 'backstay verify' name all that is damaged",
            )
        return mine, others

    async def _plan(self, mine: Sequence[Group], others: Sequence[Group]) -> Plan:
        known = tuple(self._vault.deleted)
        begun = [gid for gid in known if (await size_of(self._store, gid)).objects]
        if not mine and not begun:
            raise self._nothing(others)
        return Plan(
            self._machine,
            tuple([await self._going(group) for group in mine]),
            tuple(begun),
            tuple(await self._obstacles(mine, others)),
        )

    def _nothing(self, others: Sequence[Group]) -> NotFound:
        said = [each.described(gid) for gid, each in self._vault.deleted.items()]
        return NotFound(
            "no machine of this name in the vault",
            operation=_OPERATION,
            subject=self._machine,
            hint="; ".join(said[-_NAMED:]) or "'backstay rescue' lists the machines in it",
        )

    async def _going(self, group: Group) -> Going:
        floor = group.log.floor
        points = group.tail - group.log.first + 1 + (len(floor.points) if floor else 0)
        size = await size_of(self._store, group.scope.group)
        return Going(group.scope.group, points, group.log.first, group.tail, size)

    async def _obstacles(self, mine: Sequence[Group], others: Sequence[Group]) -> list[str]:
        """Why nothing may go: what depends on it, who needs it, who still writes it."""
        ids = {group.scope.group for group in mine}
        found = []
        for other in others:
            parent = other.record.parent
            if parent is not None and parent.group in ids:
                name = await other.name() or "a machine without commits"
                found.append(
                    f"{name} (group {other.scope.group.hex()}) branches off it at #{parent.seq}"
                )
        for group in mine:
            found += await self._needed(group.scope)
            age = (self._now - await time_of(group, group.tail)) / 1e6
            if age < QUIET:
                found.append(
                    f"its newest commit, #{group.tail}, is {max(0.0, age):.0f} s old: a daemon "
                    f"still replicates it; 'backstay unprotect {self._machine} --keep-data', and "
                    f"again {QUIET / 60:.0f} minutes after the last commit"
                )
        return found

    async def _needed(self, scope: Scope) -> list[str]:
        where = (self._store, scope, self._vault.charter)
        holds, leases = await load_holds(*where), await load_leases(*where, self._now)
        failovers = await load_failovers(*where)
        state = failovers.state
        found = [f"point #{each.seq} is held by {each.by}" for each in holds.holds]
        found += [
            f"point #{each.lease.seq} is being read: {each.lease.by}" for each in leases.running
        ]
        found += [*holds.problems, *leases.problems, *failovers.problems]
        if state.phase is Phase.OPEN:
            found.append(f"{state.phase}: commit or cancel it first")
        if state.test is not None:
            found.append("a failover test is open: 'backstay failover cleanup' ends it")
        return found

    def _refuse(self, obstacles: Sequence[str]) -> None:
        if obstacles:
            more = f"; and {len(obstacles) - _NAMED} more" if len(obstacles) > _NAMED else ""
            raise IllegalOperation(
                "; ".join(obstacles[:_NAMED]) + more,
                operation=_OPERATION,
                subject=self._machine,
                hint="nothing is deleted; --dry-run lists all that stands in the way",
            )

    async def _record(self, mine: Sequence[Group]) -> None:
        """The records, before it is looked once more whether something needs a group."""
        for group in mine:
            newest = await group.log.signed(group.tail)
            claimed = await next_epoch(self._store, group.scope.group, newest.header.epoch) - 1
            made = Deletion(
                group.tail,
                newest.link,
                claimed,
                self._access.ports.clock.wall_us(),
                self._host,
                self._by,
            )
            given = (self._store, group.scope, self._vault.charter, made)
            await put_deletion(*given, self._access.key.signer)

    async def _unfenced(self, begun: Sequence[bytes]) -> list[bytes]:
        """Of groups whose deletion was begun before, those that whoever did so had perhaps not
        looked at again: he was killed, or is about to."""
        charter = self._vault.charter
        found = []
        for gid in begun:
            scope = Scope(charter.vault, gid, charter.cipher)
            if not await is_decided(self._store, scope, charter, self._vault.deleted[gid]):
                found.append(gid)
        return found

    async def _look_again(self, ids: Sequence[bytes]) -> None:
        """Whoever may have come to need a group meanwhile looks at the record after his hold or
        lease, so that one of the two sees the other. If it is this one, he withdraws the records.
        """
        charter = self._vault.charter
        late = []
        for gid in ids:
            late += await self._needed(Scope(charter.vault, gid, charter.cipher))
        for other in await self._vault.groups():
            parent = other.record.parent
            if parent is not None and parent.group in ids:
                late.append(f"group {other.scope.group.hex()} branches off it since this moment")
        if late:
            for gid in ids:
                scope = Scope(charter.vault, gid, charter.cipher)
                kept = await withdraw(self._store, scope, charter, self._access.key.signer)
                if kept is not None:
                    late.append(f"another run saw nothing in its way: {kept.described(gid)}")
            self._refuse(late)

    async def _fence(self, gid: bytes) -> None:
        charter, now = self._vault.charter, self._access.ports.clock.wall_us()
        scope = Scope(charter.vault, gid, charter.cipher)
        if not await decide(self._store, scope, charter, self._access.key.signer, now):
            raise IllegalOperation(
                "another run has withdrawn the deletion this moment: something needs the machine",
                operation=_OPERATION,
                subject=self._machine,
                hint="nothing is deleted; --dry-run lists all that stands in the way",
            )
