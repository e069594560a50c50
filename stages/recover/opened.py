"""An opened vault: groups, machines, logs. It takes a store and a private key, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from stages.crypto.box import BoxSecret
from stages.errors import (
    UNREADABLE,
    BrokenChain,
    Damage,
    DamagedObject,
    Deleted,
    KeyFailure,
    NotAdmitted,
    NotFound,
    ObjectMissing,
    UnknownVersion,
)
from stages.recover.listing import ages_of, group_ids, last_listed, read_record
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.charter import Charter, Pin, check_pin, load
from stages.vault.container import HEAD_SIZE, MAX_BODY, MAX_HEADER, Kind, parse
from stages.vault.deletion import Deletion, load_deletion
from stages.vault.floor_log import Packs, load_floor
from stages.vault.floors import Floor
from stages.vault.keyfile import PrivateKey
from stages.vault.log import Log
from stages.vault.records import GroupRecord, MachineRecord, read_machine
from stages.vault.sealing import Scope
from stages.vault.terms import DATA, INDEX, KeyRing, check_place, check_signer

_FLOOR_TRIES = 8


@dataclass
class Group:
    """One group of an opened vault. ``tail`` is its newest commit when it was opened.

    Of a branch ``parent`` is known once ``lineage.parent_of`` was asked, and ``above``: its own
    epochs are above that one. ``below``: the groups through which one came to this parent.
    """

    scope: Scope
    record: GroupRecord
    ring: KeyRing
    log: Log
    tail: int
    machines: dict[int, MachineRecord] = field(default_factory=dict)
    parent: Group | None = None
    above: int = 0
    below: tuple[bytes, ...] = ()
    _packs: Packs | None = None
    _packs_of: Floor | None = None

    @property
    def packs(self) -> Packs | None:
        """Where frames are that the floor in force has moved; None if there are none."""
        floor = self.log.floor
        if floor is not self._packs_of:
            refs = floor.packs if floor is not None else ()
            given = (self.log.store, self.scope, self.ring.charter, refs)
            self._packs = Packs(*given, self.log.note) if refs else None
            self._packs_of = floor
        return self._packs

    async def look_at_floor(self) -> None:
        """Read the newest floor: what retention has let go, where the log begins."""
        found = await load_floor(self.log.store, self.scope, self.ring.charter)
        for note in found.passed:
            self.log.note(note)
        self.log.floor = found.floor

    async def machine(self, number: int) -> MachineRecord:
        """A machine record, read once."""
        if number not in self.machines:
            key = layout.machine(self.scope.group, number)
            try:
                data = await self.log.store.get(key, 0, HEAD_SIZE + MAX_HEADER + MAX_BODY)
            except ObjectMissing:
                raise BrokenChain("a machine record is missing", subject=key) from None
            found = parse(data, key, Kind.MACHINE)
            check_signer(found, self.ring.charter)
            check_place(found, self.scope)
            keys = await self.ring.keys(found.header.number("epoch"))
            body = data[found.body_at : found.tail_at]
            self.machines[number] = read_machine(found, self.scope, keys, body)
        return self.machines[number]

    async def machine_at(self, seq: int) -> MachineRecord:
        """The machine record in force at a commit."""
        return await self.machine((await self.log.signed(seq)).header.machine)

    async def usable(self) -> bool:
        """True if there is a consistent point, or damage that has to be told about."""
        try:
            return bool(await self.log.consistent_before(self.tail))
        except UNREADABLE:
            return True

    async def name(self) -> str:
        """The machine's name: by the newest commit, or the newest record that can be read."""
        if not self.tail:
            return ""
        try:
            return (await self.machine_at(self.tail)).name
        except (Damage, UnknownVersion) as error:
            prefix = layout.machine(self.scope.group, 0).rpartition("/")[0] + "/"
            for info in reversed(await self.log.store.page(prefix)):
                number = info.key.rpartition("/")[2]
                with suppress(Damage, NotAdmitted, UnknownVersion, ValueError):
                    return (await self.machine(int(number))).name
            raise error from None


@dataclass
class OpenedVault:
    """A vault whose charter matches the pins of the private key that opens it."""

    store: ObjectStore
    charter: Charter
    box: BoxSecret
    problems: list[str] = field(default_factory=list)
    uses: Sequence[str] = (DATA, INDEX)
    deleted: dict[bytes, Deletion] = field(default_factory=dict)

    async def groups(self) -> list[Group]:
        """All groups that can be opened, newest first; ``problems`` says why others cannot, and
        ``deleted`` which were deleted on purpose.

        A branch is newer than what it branches off, whatever the clocks said.
        """
        found = []
        for gid, first in await group_ids(self.store, self.problems):
            try:
                if first == layout.deleted(gid):
                    await self._check_not_deleted(gid)
                found.append(await self._group(gid))
            except Deleted:
                continue
            except (KeyFailure, *UNREADABLE) as error:
                self.problems.append(str(error))
        ages = ages_of({group.scope.group: group.record for group in found})
        return sorted(found, key=lambda group: -ages[group.scope.group])

    async def group(self, gid: bytes) -> Group:
        """Open one group and find its tail. Raises ``Damage``, ``KeyFailure``, ``Deleted``.

        Without its record a group can be read all the same; ``problems`` says so.
        """
        await self._check_not_deleted(gid)
        return await self._group(gid)

    async def _check_not_deleted(self, gid: bytes) -> None:
        scope = Scope(self.charter.vault, gid, self.charter.cipher)
        deletion = await load_deletion(self.store, scope, self.charter)
        if deletion is not None:
            self.deleted[gid] = deletion
            raise deletion.error(gid, "open group")

    async def _group(self, gid: bytes) -> Group:
        scope = Scope(self.charter.vault, gid, self.charter.cipher)
        ring = KeyRing(self.store, scope, self.charter, self.box, self.uses)
        log = Log(self.store, scope, ring)
        group = Group(scope, GroupRecord(0, None), ring, log, 0)
        await group.look_at_floor()
        tail = group.tail = await self._tail(group)
        try:
            record = await read_record(self.store, scope, self.charter)
        except UNREADABLE as error:
            if not tail:
                raise
            self.problems.append(str(error))
            record = GroupRecord(0, None)
            with suppress(*UNREADABLE):
                first = (await log.signed(1)).header
                record = GroupRecord(first.wall, None)
                if first.previous != log.genesis:
                    self.problems.append(
                        f"{layout.group_record(gid)}: the group is a branch, and only its record "
                        "says of what: what it has not written itself cannot be restored"
                    )
        log.begin_at(record.parent)
        group.record = record
        return group

    async def find(self, machine: str) -> Group:
        """The newest group of a machine, by name or by group id.

        Raises ``NotFound``, ``Deleted``, or ``DamagedObject`` if it may be one that cannot be read.
        """
        known = len(self.problems)
        try:
            return await self._find(machine)
        except (NotFound, *UNREADABLE) as error:
            if isinstance(error, Deleted) or not await self._deleted_meanwhile():
                raise
        del self.problems[known:]
        return await self._find(machine)

    async def _deleted_meanwhile(self) -> bool:
        """Is a group's deletion on record that was not when groups were listed?"""
        ids = await group_ids(self.store, self.problems)
        return any(key == layout.deleted(gid) and gid not in self.deleted for gid, key in ids)

    async def _find(self, machine: str) -> Group:
        names = set()
        newest: Group | None = None
        for group in await self.groups():
            if not group.tail:
                continue
            if machine == group.scope.group.hex():
                return group
            try:
                name = await group.name()
            except UNREADABLE as error:
                self.problems.append(str(error))
                continue
            names.add(name)
            if machine != name:
                continue
            if await group.usable():
                if newest is not None:
                    self.problems.append(
                        f"group {newest.scope.group.hex()}, newer, has no consistent point yet"
                    )
                self._tell_branch(group)
                return group
            newest = newest or group
        if newest is not None:
            self._tell_branch(newest)
            return newest
        for gid, deletion in self.deleted.items():
            if machine == gid.hex():
                raise deletion.error(gid, "find machine")
        known = ", ".join(sorted(names)) or "none"
        failed = "".join(f"; {problem}" for problem in self.problems[:3])
        kind = DamagedObject if failed else NotFound
        raise kind(
            "no machine of this name " + ("among what can be read" if failed else "in the vault"),
            operation="find machine",
            subject=machine,
            hint=f"machines in this vault: {known}{failed}{self._deletions()}",
        )

    def _deletions(self) -> str:
        """What was deleted lately: whose name cannot be told any more."""
        newest = sorted(self.deleted.items(), key=lambda each: -each[1].stamp)[:3]
        return "".join(f"; {deletion.described(gid)}" for gid, deletion in newest)

    def _tell_branch(self, group: Group) -> None:
        """Whoever asks by name should know that the machine has another history, too."""
        parent = group.record.parent
        if parent is not None:
            self.problems.append(
                f"group {group.scope.group.hex()} is a branch, begun at commit {parent.seq} of "
                f"group {parent.group.hex()}; to look at that one, give its id for the name"
            )

    async def _tail(self, group: Group) -> int:
        """The newest commit. A hole before it costs the points that need what is missing, only."""
        log = group.log
        for _ in range(_FLOOR_TRIES):
            floor, wrong = log.floor, ""
            try:
                if tail := await log.tail():
                    return tail
            except BrokenChain as error:
                wrong = str(error)
            await group.look_at_floor()  # has its beginning gone this moment?
            if log.floor == floor:
                break
        if not wrong:
            return 0
        self.problems.append(wrong)
        return await last_listed(self.store, log.scope.group)


async def open_vault(
    store: ObjectStore,
    key: PrivateKey,
    pins: tuple[Pin, ...] = (),
    *,
    uses: Sequence[str] = (DATA, INDEX),
) -> OpenedVault:
    """Open a vault with a private key; ``pins`` are those of the key file and a trust file.

    ``uses``: which of the epochs' keys are opened. A keeper does with ``INDEX``.
    Raises ``TrustMismatch`` if the vault is none of the pinned ones: pins are never learnt here.
    """
    charter = await load(store, None)
    known = [pin for pin in (*key.pins, *pins) if pin.vault == charter.vault]
    if not known:
        raise KeyFailure(
            f"this key file does not know vault {charter.vault.hex()}",
            operation="open vault",
            subject=store.url,
            hint="give the trust file written by 'backstay init' with --trust, if this vault is "
            "the right one",
        )
    for pin in known:
        check_pin(charter, pin, store.url)
    return OpenedVault(store, charter, key.box, uses=uses)
