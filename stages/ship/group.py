"""What a group has beside its log: its record, its digest key wrapped for every recipient, and
records of the machine.
"""

from __future__ import annotations

from stages.errors import BackstayError
from stages.model import Disk
from stages.ship.session import LogSession, Writer
from stages.store.port import Put
from stages.vault import layout
from stages.vault.branches import put_group
from stages.vault.records import GroupRecord, MachineRecord, Parent, machine_object

_MACHINE_TRIES = 1000


async def found_group(writer: Writer, digest_key: bytes, parent: Parent | None = None) -> None:
    """Store what a group begins with; harmless when it exists, as after a crash half-way.

    The group's id is random and kept durably before this, so nobody else can have taken it.
    ``parent``: the commit that it begins at, if it is a branch; its digest key is the parent's,
    and its ledger was begun with ``Ledger.begin_branch``.
    """
    group = writer.scope.group
    if await writer.store.info(layout.group_record(group)) is not None:
        return
    record = GroupRecord(writer.machine.clock.wall_us(), parent)
    await put_group(
        writer.store,
        writer.scope,
        writer.charter,
        writer.signer,
        writer.machine.entropy,
        record,
        digest_key,
    )


async def record_machine(session: LogSession, name: str, disks: tuple[Disk, ...]) -> None:
    """Store the next machine record; commits made from now on name it.

    Raises ``BackstayError`` if a thousand numbers are taken, store errors.
    """
    writer, ledger = session.writer, session.ledger
    for number in range(ledger.machine + 1, ledger.machine + _MACHINE_TRIES):
        parts = machine_object(
            writer.scope,
            session.keys,
            MachineRecord(number, name, disks),
            writer.signer,
            writer.machine.entropy,
        )
        if await writer.store.put(layout.machine(writer.scope.group, number), parts) is Put.CREATED:
            await writer.machine.offload.run(lambda: ledger.set_disks(number, disks))  # noqa: B023
            return
    raise BackstayError("no free number for a machine record", subject=name)
