"""The keeper: plans which points stay, and deletes what nothing needs, in two phases (R16).

First a floor says what is offered from now on; nothing is deleted. Readers that began before it
have the grace to end. A later run, once the floor in force is older than the grace by the store's
clock, works out anew what that floor's points lead to, and deletes the rest. So there is nothing
to be taken up again after a crash: what is left to delete is found by looking. Two keepers at once
delete the same things; of two floors with one number the store takes one.
"""

from __future__ import annotations

from stages.crypto.sign import Signer
from stages.errors import UNREADABLE, KeyFailure
from stages.keeper.decided import is_decided
from stages.keeper.erase import erase, size_of
from stages.keeper.one_group import GroupPass
from stages.keeper.report import GroupReport, Report
from stages.keeper.rules import GRACE, Rules
from stages.keeper.times import store_time
from stages.ports import Machine
from stages.recover.opened import OpenedVault
from stages.vault.deletion import Deletion, load_deletion
from stages.vault.sealing import Scope

__all__ = ["GRACE", "Keeper", "Rules"]


class Keeper:
    """One run over a vault, opened with ``uses=(INDEX,)``: content is never opened."""

    def __init__(self, vault: OpenedVault, machine: Machine, signer: Signer, rules: Rules):
        self._parts = (machine, signer, rules)
        self._vault = vault
        self._store = vault.store
        self._machine = machine
        self._signer = signer
        self._rules = rules

    async def run(self, *, dry_run: bool = False) -> Report:
        """Delete what may go, then say what goes next. Raises ``KeyFailure`` for a key that is no
        keeper's, ``IllegalOperation`` if clocks disagree, ``StoreDenied``, store errors.

        Damage in a group keeps that group as it is; it is among the ``problems``.
        """
        if not self._vault.charter.keeps(self._signer.public):
            raise KeyFailure(
                "this key is neither the operator's nor a keeper's",
                operation="retention",
                subject=self._store.url,
                hint="backstay vault admit-keeper VAULT --key OPERATOR.key --keeper KEEPER.pub",
            )
        now = (
            self._machine.clock.wall_us()
            if dry_run
            else await store_time(self._store, self._machine)
        )
        report = Report(now, dry_run)
        groups = await self._vault.groups()
        if self._vault.problems:
            # One that cannot be read may be a branch of any other.
            report.problems += [
                f"{problem}; nothing is let go in this vault" for problem in self._vault.problems
            ]
            return report
        for gid, deletion in self._vault.deleted.items():
            if not self._rules.only or gid in self._rules.only:
                await self._finish(gid, deletion, report)
        for group in groups:
            if group.tail and (not self._rules.only or group.scope.group in self._rules.only):
                found = GroupReport(group.scope.group.hex(), tail=group.tail)
                report.groups.append(found)
                try:
                    await GroupPass(self._parts, group, groups, found, now, dry_run=dry_run).run()
                except UNREADABLE as error:
                    found.problems.append(f"{error}; nothing more is let go in this group")
                found.notes += [note for note in group.log.ignored if note not in found.notes]
        return report

    async def _finish(self, gid: bytes, deletion: Deletion, report: Report) -> None:
        """What is left of a deletion that did not come to its end, or was put since."""
        charter = self._vault.charter
        scope = Scope(charter.vault, gid, charter.cipher)
        left = await size_of(self._store, gid)
        if not left.objects:
            return
        found = GroupReport(gid.hex(), notes=[deletion.described(gid)])
        report.groups.append(found)
        if not await is_decided(self._store, scope, charter, deletion):
            found.problems.append(
                "what is left of it stays, as its daemon may still write: the operator has to give "
                "'backstay unprotect --delete-data' again"
            )
            return
        if await load_deletion(self._store, scope, charter) is None:  # withdrawn before the fence
            found.notes.append("the deletion was withdrawn this moment")
            return
        gone = left if report.dry_run else await erase(self._store, gid)
        found.deleted["deleted groups"], found.objects = gone.bytes, gone.objects
