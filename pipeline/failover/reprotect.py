"""After a committed failover: a daemon that goes on where the replica is, in the branch.

Its state folder is made to know what the vault holds at the branch's beginning, so that it ships
only what differs from that; then it is recorded that the branch is a machine of its own. A daemon
that runs with that folder goes on with its other machines meanwhile: it has let go of this one, or
is waited for, and takes it up again afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from pipeline.branching import adopt_branch
from pipeline.control.model import Operation
from pipeline.failover.ground import Ground, stand_on
from pipeline.failover.model import Approve, Done, Who, accept
from pipeline.failover.operations import conclude
from pipeline.hands import Held, take
from pipeline.recovery import Access
from pipeline.state import StateFolder
from stages import durable
from stages.errors import MissingData, StateLocked
from stages.ports import Machine
from stages.ship.trouble import in_words
from stages.vault.failover_log import load_failovers
from stages.vault.failover_state import Phase
from stages.vault.records import Parent

PATIENCE = 40.0  # seconds for a daemon to let go: it looks at the vault every 15 s
_POLL_SECONDS = 0.5


def _silent(_line: str) -> None:
    """Nobody wants to know."""


async def reprotect(
    access: Access,
    machine: str,
    who: Who,
    *,
    folder: str,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
    tell: Callable[[str], None] = _silent,
    patience: float = PATIENCE,
) -> Done:
    """``folder``: the state folder of the daemon that protects the replica from now on; it is
    admitted. What it knew of the machine in this vault is put away. A daemon that runs with this
    folder has ``patience`` seconds to let go of the machine (``StateLocked``).

    Given again after a crash, it finishes. Raises what ``adopt_branch`` and ``conclude`` raise.
    """

    @asynccontextmanager
    async def adopted(ground: Ground) -> AsyncIterator[None]:
        point, branch = ground.state.point, ground.state.branch
        if point is None:
            raise MissingData("the records do not say of which point", subject=machine)
        parent = Parent(ground.group.scope.group, point.seq, point.digest)
        adopt = partial(adopt_branch, access, state, ground.machine, parent, group=branch)
        ports, vault = access.ports, ground.vault.charter.vault
        # It went so far before, and a daemon may have taken it up: nothing of it is exchanged.
        if state.record_of(ground.machine, vault) == branch:
            await adopt(retire=True)
            yield
            return
        held = await _held(ports, state, ground.machine, tell, patience)
        try:
            await ports.offload.run(partial(state.finish_exchange, ground.machine))
            await adopt(retire=True)
            try:
                yield
            finally:  # the branch is this daemon's, whether or not that could be recorded
                state.finish_exchange(ground.machine)
        finally:
            held.close()

    with in_words("open state", folder):
        durable.make_dirs(access.ports.files, folder)
    state = StateFolder.open(access.ports, folder, lock=False)
    return await conclude(
        access,
        await _gone_on(access, state, machine) or machine,
        who,
        operation=Operation.REPROTECT,
        note=note,
        approve=approve,
        rehearse=rehearse,
        around=adopted,
    )


async def _gone_on(access: Access, state: StateFolder, machine: str) -> str:
    """The command may be given again, cut short before or behind its record, when this folder's
    daemon has written to the branch: the machine's name means the branch then. The group that the
    branch is of, or ""."""
    async with stand_on(access, machine) as ground:
        group, parent = ground.group.scope.group, ground.group.record.parent
        mine = state.record_of(ground.machine, ground.vault.charter.vault) == group
        if parent is None or not mine or ground.state.phase is not Phase.NONE:
            return ""
        scope = replace(ground.group.scope, group=parent.group)
        above = await load_failovers(ground.vault.store, scope, ground.vault.charter)
        here = above.state.phase in (Phase.COMMITTED, Phase.REPROTECTED)
        return parent.group.hex() if here and above.state.branch == group else ""


async def _held(
    ports: Machine,
    state: StateFolder,
    machine: str,
    tell: Callable[[str], None],
    patience: float,
) -> Held:
    """The machine, once the daemon has let go of it."""
    end = ports.clock.monotonic() + patience
    told = False
    while True:
        try:
            return await ports.offload.run(partial(take, ports.files, state, machine))
        except StateLocked:
            if ports.clock.monotonic() >= end:
                raise
            if not told:
                tell(f"{machine}: waiting for the daemon to let go of it, {patience:g} s at most")
            told = True
            await ports.clock.sleep(_POLL_SECONDS)
