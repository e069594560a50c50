"""Beginning a group: its record, and its digest key wrapped for every recipient."""

from __future__ import annotations

from stages.ship.session import Writer
from stages.vault import layout
from stages.vault.branches import put_group
from stages.vault.records import GroupRecord, Parent


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
