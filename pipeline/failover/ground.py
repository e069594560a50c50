"""What every operation stands on: the opened vault, the machine's group, its records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from pipeline.failover.model import Standing, Who
from pipeline.failover.points import newest_of
from pipeline.recovery import Access
from stages.crypto.digest import derive
from stages.crypto.sign import Signer
from stages.errors import UNREADABLE, IllegalOperation, KeyFailure, StoreError, WrongKey
from stages.ports import Machine
from stages.recover.opened import Group, OpenedVault
from stages.recover.points import Point
from stages.vault import layout
from stages.vault.branches import branch_exists, fence, found_branch, is_fenced
from stages.vault.deletion import load_deletion
from stages.vault.failover_log import FailoverLog, append_failover, load_failovers
from stages.vault.failover_state import FailoverState, Phase, refusal
from stages.vault.failovers import Event, FailoverPoint, FailoverRecord
from stages.vault.records import Parent
from stages.vault.sealing import Scope

_TRIES = 8
_PATIENCE = 15.0  # seconds of blips
_BRANCHES = 64
_KEY_CONTEXT = "Backstay 1 digest key of a branch whose parent's is lost"


@dataclass
class Ground:
    """One machine of an opened vault, on which operations stand."""

    ports: Machine
    vault: OpenedVault
    group: Group
    machine: str
    signer: Signer
    log: FailoverLog
    newest: Point | None

    @property
    def state(self) -> FailoverState:
        """What the records add up to."""
        return self.log.state

    def notes(self) -> tuple[str, ...]:
        """What reading has gone round, without repeats."""
        found = (*self.vault.problems, *self.group.log.ignored, *self.log.notes, *self.log.problems)
        return tuple(dict.fromkeys(found))

    def check_sure(self) -> None:
        """Raise ``BrokenChain`` if the records do not say for sure where the machine stands."""
        self.log.check(self.machine)

    def check_operator(self) -> None:
        """Raise ``WrongKey`` unless the key may sign records."""
        if self.signer.public != self.vault.charter.operator:
            raise WrongKey(
                "only the operator's key signs failovers",
                operation="failover",
                subject=self.vault.store.url,
                hint="use the private key with which 'backstay init' made this vault; with this "
                "one 'backstay restore' and 'backstay export' work all the same",
            )

    def is_own_last(self, event: Event, who: Who) -> bool:
        """Is the newest record this event, by this host? Then the command is given again."""
        newest = self.log.records[-1] if self.log.records else None
        return newest is not None and newest.event is event and newest.host == who.host

    async def record(
        self,
        event: Event,
        who: Who,
        *,
        point: FailoverPoint | None = None,
        branch: bytes | None = None,
        planned: bool = False,
        note: str = "",
    ) -> None:
        """Append; of several hosts one wins, the others are told. Raises ``IllegalOperation``."""
        for _ in range(_TRIES):
            if not self.state.allows(event):
                raise refusal(self.state, event, self.machine)
            now = self.ports.clock.wall_us()
            made = FailoverRecord(
                1, bytes(32), event, now, who.host, who.by, point, branch, planned, note
            )
            before = self.log
            after = await append_failover(
                self.vault.store, self.group.scope, self.signer, before, made
            )
            if after is not None:
                self.log = after
                return
            self.log = await self._load()
            if len(self.log.records) != len(before.records):
                raise self._overtaken(event)
        raise StoreError(
            "the next failover record's place is taken again and again",
            operation="failover",
            subject=self.machine,
            hint="someone with access to the store puts objects there",
        )

    def _overtaken(self, event: Event) -> IllegalOperation:
        """Somebody else decided meanwhile: what was decided here was decided on another state."""
        newest = self.log.records[-1]
        refused = refusal(self.state, event, self.machine)
        refused.message = (
            f"{newest.by} on {newest.host} was faster ({newest.event}): the machine is now "
            f"'{self.state.described()}', and nothing was done here"
        )
        return refused

    async def finish(self) -> None:
        """The fence and the branch of the open failover; what is there already stays."""
        store, scope, charter = self.vault.store, self.group.scope, self.vault.charter
        deletion = await load_deletion(store, scope, charter)
        if deletion is not None:  # put this moment: who deletes looks at failovers after it
            raise deletion.error(scope.group, "failover")
        await fence(store, scope, self.signer, self.ports.clock.wall_us())
        parent, branch, created = self._branch()
        await found_branch(
            store,
            branch,
            charter,
            self.signer,
            self.ports.entropy,
            parent,
            await self._digest_key(branch),
            created,
        )

    async def is_whole(self) -> bool:
        """Are fence and branch of the open failover there?"""
        store, charter = self.vault.store, self.vault.charter
        if not await is_fenced(store, self.group.scope, charter.operator):
            return False
        parent, branch, _ = self._branch()
        return await branch_exists(store, branch, charter, parent)

    async def standing(self) -> Standing:
        """Where the machine stands now."""
        whole = self.state.phase is not Phase.OPEN or await self.is_whole()
        return Standing(
            self.machine, self.group.scope.group, self.log, whole, self.newest, self.notes()
        )

    async def refresh(self) -> int:
        """Look at the log's tail again; how many commits arrived since it was opened."""
        before = self.group.tail
        self.group = await self.vault.group(self.group.scope.group)
        return self.group.tail - before

    async def _load(self) -> FailoverLog:
        return await load_failovers(self.vault.store, self.group.scope, self.vault.charter)

    def _branch(self) -> tuple[Parent, Scope, int]:
        """Where the open failover's branch begins, its scope, its stamp. Same at each call."""
        state = self.state
        opened = next(r for r in reversed(self.log.records) if r.branch == state.branch)
        parent = opened.parent(self.group.scope.group)
        if parent is None or state.branch is None:  # no such record is read
            raise StoreError("the failover has no branch", subject=self.machine)
        return parent, replace(self.group.scope, group=state.branch), opened.stamp

    async def _digest_key(self, branch: Scope) -> bytes:
        """The parent's, so that the way back compares with what the parent knows. Where that is
        lost, another that is the same each time."""
        with suppress(KeyFailure, *UNREADABLE):
            return await self.group.ring.digest_key()
        return derive(_KEY_CONTEXT, self.signer.seed + branch.group)


@asynccontextmanager
async def stand_on(
    access: Access, machine: str, *, patience: float = 15.0
) -> AsyncIterator[Ground]:
    """Open the vault and find a machine, by name or group id."""
    async with access.vault(patience=patience) as vault:
        group = await vault.find(machine)
        group, log = await _of_failover(vault, group)
        name = await group.name()
        yield Ground(
            access.ports, vault, group, name, access.key.signer, log, await newest_of(group)
        )


async def _of_failover(vault: OpenedVault, group: Group) -> tuple[Group, FailoverLog]:
    """The group whose records count: a branch that nobody writes is only its parent's replica.

    Its failover is then the parent's. One that was reprotected is a machine of its own.
    """
    for _ in range(_BRANCHES):
        parent = group.record.parent
        if parent is None:
            break
        above = await vault.group(parent.group)
        log = await load_failovers(vault.store, above.scope, vault.charter)
        mine = log.state.branch == group.scope.group
        own = await vault.store.page(layout.log_prefix(group.scope.group), limit=1)
        if mine and (own or log.state.phase is Phase.REPROTECTED) and _is_apart(log.state.phase):
            break
        group = above
    return group, await load_failovers(vault.store, group.scope, vault.charter)


def _is_apart(phase: Phase) -> bool:
    """May a branch be a machine of its own?"""
    return phase in (Phase.COMMITTED, Phase.REPROTECTED, Phase.CLOSED)
