"""Beginning to protect a machine as a branch: a new group that goes on from a point of another.

It needs the private key once, to read what the vault holds at that point. From then on the daemon
ships what differs from it, with its own key, like any other machine's.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from pipeline.recovery import Access
from pipeline.state import Identity, StateFolder
from stages.errors import BackstayError, BrokenChain, Fenced
from stages.ports import Machine
from stages.recover.known import KnownDigests
from stages.recover.listing import read_record
from stages.recover.opened import OpenedVault
from stages.recover.pointmap import PointMap
from stages.recover.sweep import WINDOW_BLOCKS, Sweep
from stages.ship.group import found_group
from stages.ship.ledger import Ledger
from stages.ship.session import Writer
from stages.ship.trouble import in_words
from stages.vault import layout
from stages.vault.charter import ID_SIZE
from stages.vault.records import Parent
from stages.vault.sealing import Scope
from stages.vault.terms import MAX_EPOCH


@dataclass(frozen=True, slots=True)
class Adopted:
    """The branch that a state folder goes on with. ``read`` blocks were opened for digests."""

    machine: str
    group: bytes
    parent: Parent
    disks: tuple[tuple[str, int], ...]
    read: int


async def adopt_branch(
    access: Access,
    state: StateFolder,
    machine: str,
    parent: Parent,
    *,
    group: bytes | None = None,
    retire: bool = False,
) -> Adopted:
    """Make a group that begins at ``parent``, and the record with which its daemon goes on.

    ``group``: its id, if somebody has noted one before, so that doing it again after a crash makes
    no second one. ``retire``: a record that this folder has of the machine, an earlier group's, is
    put away. The daemon of ``state`` must be admitted, and whoever calls this holds the machine
    (``pipeline.hands``): the new record is in force when it is whole, and no daemon takes it up
    before ``finish_exchange``, or the end of this process. Raises ``StateError`` if this folder
    protects the machine in this vault already, ``BrokenChain`` if the commit is not the one that
    was meant, ``Fenced`` if the branch has commits that this
    folder does not know, ``NotAdmitted``, ``Damage`` or store errors.
    """
    with in_words("keep state", state.path):  # stores and scratch files put theirs into words
        return await _adopt(access, state, machine, parent, group, retire=retire)


async def _adopt(
    access: Access,
    state: StateFolder,
    machine: str,
    parent: Parent,
    group: bytes | None,
    *,
    retire: bool,
) -> Adopted:
    ports = access.ports
    async with access.vault() as vault, AsyncExitStack() as stack:
        known = state.record_of(machine, vault.charter.vault)
        folder = ""
        if group is None or known != group:
            folder = state.new_machine_folder(machine, vault.charter.vault, retire=retire)
        point = await _point(vault, ports, parent)
        stack.callback(point.close)
        scope = Scope(
            vault.charter.vault, group or ports.entropy.token(ID_SIZE), vault.charter.cipher
        )
        writer = Writer(vault.store, scope, vault.charter, state.signer(), ports)
        writer.check_admitted()
        disks = tuple((disk.name, disk.size) for disk in point.machine.disks)
        if not folder:  # it was done before, and may have shipped since
            await _check_record(writer, parent)
            return Adopted(machine, scope.group, parent, disks, 0)
        await _check_unused(writer)
        key = await point.group.ring.digest_key()
        ledger = Ledger(ports, folder, scope)
        stack.callback(ledger.close)
        read = await inherit(ledger, point, ports, key, link=parent.digest, workers=access.workers)
        state.keep_identity(folder, Identity(scope.group, key))
        await found_group(writer, key, parent)
        await _check_record(writer, parent)
        await ports.offload.run(partial(state.take_machine_folder, machine, scope.vault))
        return Adopted(machine, scope.group, parent, disks, read)


async def inherit(
    ledger: Ledger, point: PointMap, ports: Machine, key: bytes, *, link: bytes, workers: int = 2
) -> int:
    """Make an empty ledger the record of a branch that begins at ``point``, durably.

    Returns the number of blocks whose content was read, as no checkpoint knew their digests.
    Raises ``Damage``, ``StateError`` or store errors.
    """
    if point.header.epoch >= MAX_EPOCH:
        raise BackstayError("no epoch is left for a branch", subject=point.machine.name)
    digests = KnownDigests(point, ports, key, workers=workers)
    await digests.begin()
    sweep = Sweep(point, ports, workers=workers)
    disks = point.machine.disks
    await ports.offload.run(partial(ledger.begin_branch, point.header, link, disks))
    for disk in disks:
        for first in range(0, disk.blocks, WINDOW_BLOCKS):
            window = await sweep.locate(disk, first)
            known = await digests.of(window)
            told = partial(ledger.inherit, disk.number, first, window.locations, known)
            await ports.offload.run(told)
    await ports.offload.run(ledger.checkpoint_state)
    return digests.opened


async def _check_record(writer: Writer, parent: Parent) -> None:
    """The group may have been made before: as a branch of something else?"""
    record = await read_record(writer.store, writer.scope, writer.charter)
    if record.parent != parent:
        raise BrokenChain(
            "the group exists, and begins at something else",
            operation="begin branch",
            subject=layout.group_record(writer.scope.group),
            hint="begin a branch with a new id",
        )


async def _check_unused(writer: Writer) -> None:
    """A record that knows of no commit cannot go on with a log that has some."""
    first = layout.commit(writer.scope.group, 1)
    if await writer.store.info(first) is not None:
        raise Fenced(
            "another daemon, or this one with another state, has written to this branch",
            operation="begin branch",
            subject=first,
            hint="begin a branch with a new id",
        )


async def _point(vault: OpenedVault, ports: Machine, parent: Parent) -> PointMap:
    """The point to go on from, if it is the one that was meant."""
    group = await vault.group(parent.group)
    commit = await group.log.signed(parent.seq)
    if commit.link != parent.digest:
        raise BrokenChain(
            "is not the commit that was meant to be the branch's first",
            operation="begin branch",
            subject=commit.container.key,
            hint="'backstay points --json' shows the digest of every point",
        )
    return await PointMap.build(group, ports.files, parent.seq)
