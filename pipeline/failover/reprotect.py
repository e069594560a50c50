"""After a committed failover: a daemon that goes on where the replica is, in the branch.

Its state folder is made to know what the vault holds at the branch's beginning, so that it ships
only what differs from that; then it is recorded that the branch is a machine of its own.
"""

from __future__ import annotations

from functools import partial

from pipeline.branching import Adopted, adopt_branch
from pipeline.control.model import Operation
from pipeline.failover.model import Approve, Done, Who, accept
from pipeline.failover.operations import conclude
from pipeline.failover.operations import state as standing_of
from pipeline.recovery import Access
from pipeline.state import StateFolder
from stages.errors import MissingData
from stages.vault.failover_state import Phase
from stages.vault.records import Parent


async def reprotect(
    access: Access,
    machine: str,
    who: Who,
    *,
    folder: str,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """``folder``: the state folder of the daemon that protects the replica from now on; it is
    admitted, and not running. What it knew of the machine in this vault is put away.

    Given again after a crash, it finishes. Raises what ``adopt_branch`` and ``conclude`` raise.
    """
    standing = await standing_of(access, machine)
    if standing.state.phase is Phase.COMMITTED and not rehearse:
        # Harmless if nobody agrees below: an empty group, and a folder that is not used yet.
        point = standing.state.point
        if point is None:
            raise MissingData("the records do not say of which point", subject=machine)
        parent = Parent(standing.group, point.seq, point.digest)
        await _adopt(access, machine, folder, parent, standing.state.branch)
    return await conclude(
        access,
        machine,
        who,
        operation=Operation.REPROTECT,
        note=note,
        approve=approve,
        rehearse=rehearse,
    )


async def _adopt(
    access: Access, machine: str, folder: str, parent: Parent, branch: bytes | None
) -> Adopted:
    ports = access.ports
    state = await ports.offload.run(partial(StateFolder.open, ports, folder))
    try:
        return await adopt_branch(access, state, machine, parent, group=branch, retire=True)
    finally:
        state.close()
