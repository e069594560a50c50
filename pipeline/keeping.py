"""Retention of a vault: running the keeper, holds, admitting a keeper's key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.assembly import vault_store
from pipeline.founding import check_operator
from pipeline.recovery import Access, with_problems
from stages.errors import (
    UNREADABLE,
    Expired,
    Fenced,
    IllegalOperation,
    KeyFailure,
    NotFound,
)
from stages.keeper.keeper import GRACE, Keeper, Rules
from stages.keeper.report import Report
from stages.keeper.retain import Retention
from stages.keeper.survey import listed
from stages.ports import Machine
from stages.recover.opened import Group, OpenedVault, open_vault
from stages.recover.points import Point, choose
from stages.store.own import put_own
from stages.store.port import Put
from stages.vault import layout
from stages.vault.charter import Charter, encode
from stages.vault.charter import Keeper as KeeperMember
from stages.vault.deletion import load_deletion
from stages.vault.floor_log import HoldsFound, load_floor, load_holds
from stages.vault.floors import Hold, hold_object
from stages.vault.keyfile import PrivateKey, PublicKey
from stages.vault.leases import LeasesFound, load_leases
from stages.vault.terms import INDEX, wrapped_object

_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """What to keep: by machine (``policies``), or ``default`` for all others; None: left alone."""

    policies: Mapping[str, Retention]
    default: Retention | None = None
    grace: float = GRACE
    machines: frozenset[str] = frozenset()

    def policy(self, machine: str) -> Retention | None:
        """What to keep of a machine; None to leave it alone."""
        if self.machines and machine not in self.machines:
            return None
        return self.policies.get(machine, self.default)


@asynccontextmanager
async def indexes(access: Access) -> AsyncIterator[OpenedVault]:
    """The vault, of whose keys only those of indexes are opened."""
    store = vault_store(access.ports, access.url, patience=_PATIENCE)
    try:
        yield await open_vault(store, access.key, access.pins, uses=(INDEX,))
    finally:
        await store.aclose()


async def run_keeper(
    access: Access,
    keeping: Keeping,
    confirm: Callable[[bytes, Report | None], None],
    *,
    dry_run: bool,
    show_first: bool,
) -> tuple[bytes, Report]:
    """One run; ``confirm`` hears the vault's id before anything is done, and with ``show_first``
    what would be. Returns the vault's id and the report."""
    async with indexes(access) as vault:
        rules = Rules(keeping.policy, grace=keeping.grace)
        ident = vault.charter.vault
        if not dry_run:
            planned = None
            if show_first:
                keeper = Keeper(vault, access.ports, access.key.signer, rules)
                planned = await keeper.run(dry_run=True)
            confirm(ident, planned)
            vault.problems.clear()
        keeper = Keeper(vault, access.ports, access.key.signer, rules)
        return ident, await keeper.run(dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class Held:
    """A point that is held, or was, and what a person should know about its choice."""

    group: str
    point: Point
    notes: tuple[str, ...]
    again: bool = False


async def hold_point(
    access: Access, machine: str, at: int | str | None, by: str, note: str, *, dry_run: bool
) -> Held:
    """Keep a point whatever its age. Raises ``Expired`` if retention was faster, ``NotFound``."""
    async with indexes(access) as vault:
        _check_keeps(vault.charter, access.key, "hold")
        group = await vault.find(machine)
        choice = with_problems(await choose(group, machine, at), vault, group)
        point, notes, scope = choice.point, choice.notes, group.scope
        hold = Hold(point.seq, point.digest, access.ports.clock.wall_us(), by, note)
        key = layout.hold(scope.group, point.seq)
        if dry_run:
            again = await vault.store.info(key) is not None
            return Held(scope.group.hex(), point, notes, again)
        parts = hold_object(scope, hold, access.key.signer)
        again = await vault.store.put(key, parts) is Put.EXISTS
        if again:
            found = await load_holds(vault.store, scope, vault.charter)
            if point.seq not in [each.seq for each in found.holds]:
                raise IllegalOperation(
                    "the place of the hold is taken by something else",
                    operation="hold",
                    subject=key,
                    hint="remove it with an operator's credentials after a look at it",
                )
        # A keeper reads the holds again after its floor: either it sees this one, or its floor is
        # seen here.
        deletion = await load_deletion(vault.store, scope, vault.charter)
        if deletion is not None:
            raise deletion.error(scope.group, "hold")
        newest = await load_floor(vault.store, scope, vault.charter)
        if newest.floor is not None and not newest.floor.offers(point.seq):
            raise Expired(
                f"retention has let point #{point.seq} go this moment",
                operation="hold",
                subject=machine,
                hint="the next run of the keeper takes it back if it comes within the grace; "
                "'backstay points' then lists it",
            )
        return Held(scope.group.hex(), point, notes, again)


async def release_point(
    access: Access,
    machine: str,
    seq: int,
    confirm: Callable[[Hold | None], None],
    *,
    dry_run: bool,
) -> tuple[str, bool]:
    """Give a held point to retention again. Returns group and whether it was held.

    Raises ``NotFound`` if it is not held, ``StoreDenied``.
    """
    async with indexes(access) as vault:
        _check_keeps(vault.charter, access.key, "release")
        group = await vault.find(machine)
        found = await load_holds(vault.store, group.scope, vault.charter)
        hold = next((each for each in found.holds if each.seq == seq), None)
        key = layout.hold(group.scope.group, seq)
        if hold is None and await vault.store.info(key) is None:
            held = ", ".join(f"#{each.seq}" for each in found.holds) or "none"
            raise NotFound(
                f"point #{seq} is not held",
                operation="release",
                subject=machine,
                hint=f"held points: {held}",
            )
        if dry_run:
            return group.scope.group.hex(), True
        confirm(hold)
        return group.scope.group.hex(), await vault.store.delete(key)


async def list_holds(access: Access, machine: str) -> tuple[str, HoldsFound, LeasesFound]:
    """The holds of a machine's newest group, and its leases as this machine's clock sees them."""
    async with indexes(access) as vault:
        group = await vault.find(machine)
        where = (vault.store, group.scope, vault.charter)
        leases = await load_leases(*where, access.ports.clock.wall_us())
        return group.scope.group.hex(), await load_holds(*where), leases


@dataclass(frozen=True, slots=True)
class KeeperAdmitted:
    """The charter in force, keys that were wrapped for the keeper, what could not be."""

    charter: Charter
    wrapped: int
    problems: tuple[str, ...]


async def admit_keeper(
    ports: Machine, url: str, private: PrivateKey, keeper: PublicKey
) -> KeeperAdmitted:
    """Let a keeper's key open all indexes and sign what retention says; again: what is missing.

    Raises ``KeyFailure`` for a key that is not the operator's, ``Fenced`` if the charter was
    changed meanwhile.
    """
    store = vault_store(ports, url, patience=_PATIENCE)
    try:
        vault = await open_vault(store, private, uses=(INDEX,))
        charter = vault.charter
        check_operator(charter, private, url, "admit keeper", "can admit keepers")
        member = KeeperMember(keeper.recipient, keeper.operator, keeper.name)
        if not any(each.key == member.key for each in charter.keepers):
            charter = charter.with_keeper(member)
            key = layout.charter(charter.generation)
            if not await put_own(store, key, [encode(charter, private.signer)]):
                raise Fenced(
                    "the charter was changed meanwhile", operation="admit keeper", subject=key
                )
        wrapped = 0
        for group in await vault.groups():
            wrapped += await _wrap(group, private, member.key, ports, vault.problems)
        return KeeperAdmitted(charter, wrapped, tuple(vault.problems))
    finally:
        await store.aclose()


async def _wrap(
    group: Group, private: PrivateKey, recipient: bytes, ports: Machine, problems: list[str]
) -> int:
    """Wrap the index keys of all epochs that the keeper has none of yet."""
    store, scope = group.log.store, group.scope
    prefix = f"{layout.group(scope.group)}epochs/"
    names = [name async for name, _ in listed(store, prefix)]
    known = set(names)
    wrapped = 0
    for name in names:
        epoch, _, rest = name.partition("/")
        if rest != "term" or f"{epoch}/for/{recipient.hex()}/{INDEX}" in known:
            continue
        if f"{epoch}/for/{private.box.public.hex()}/{INDEX}" not in known:
            continue  # of a failover's fence, or of a start that went no further
        try:
            keys = await group.ring.keys(int(epoch))
        except (KeyFailure, *UNREADABLE) as error:
            problems.append(str(error))
            continue
        parts = wrapped_object(
            scope, keys.epoch, INDEX, keys.index, recipient, private.signer, ports.entropy
        )
        key = layout.wrapped_key(scope.group, keys.epoch, recipient, INDEX)
        wrapped += await store.put(key, parts) is Put.CREATED
    return wrapped


def _check_keeps(charter: Charter, key: PrivateKey, operation: str) -> None:
    if not charter.keeps(key.signer.public):
        raise KeyFailure(
            "this key is neither the operator's nor a keeper's",
            operation=operation,
            subject=key.name,
            hint="use the private key that 'backstay init' was given, or a keeper's",
        )
