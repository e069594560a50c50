"""Going by a deletion record, or withdrawing it, when several runs delete the same at once.

What must hold: nothing of a group is removed unless its record is there, and stays; and nobody goes
by a record that was put before something which needs the group, unless someone has looked for that
after the record.

Whoever goes on has looked after the record was put, fences the group above the record's ``epoch``,
and *then* reads the record once more. Whoever withdraws does so only where there is no such fence,
and looks for one *after* it too: then the record is put back. So of two one sees the other.
"""

from __future__ import annotations

from stages.crypto.sign import Signer
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.branches import fence, is_fenced
from stages.vault.charter import Charter
from stages.vault.deletion import Deletion, load_deletion, put_deletion
from stages.vault.sealing import Scope


async def is_decided(
    store: ObjectStore, scope: Scope, charter: Charter, deletion: Deletion
) -> bool:
    """Has somebody looked again after the record was put, and fenced the group on account of it?
    The fence of a failover is not above ``epoch``."""
    return await is_fenced(store, scope, charter.operator, deletion.epoch)


async def decide(
    store: ObjectStore, scope: Scope, charter: Charter, signer: Signer, now: int
) -> bool:
    """Fence a group that was looked at again; False if its record was withdrawn: then nothing of it
    may be removed. Raises ``DamagedObject``, store errors."""
    deletion = await load_deletion(store, scope, charter)
    if deletion is None:
        return False
    await fence(store, scope, signer, now, from_epoch=deletion.epoch)
    return await load_deletion(store, scope, charter) is not None


async def withdraw(
    store: ObjectStore, scope: Scope, charter: Charter, signer: Signer
) -> Deletion | None:
    """Remove a record, as something needs the group. Returns it if somebody goes by it: it stays.

    Raises ``DamagedObject``, store errors.
    """
    deletion = await load_deletion(store, scope, charter)
    if deletion is None or await is_decided(store, scope, charter, deletion):
        return deletion
    await store.delete(layout.deleted(scope.group))
    if not await is_decided(store, scope, charter, deletion):
        return None
    await put_deletion(store, scope, charter, deletion, signer)
    return deletion
