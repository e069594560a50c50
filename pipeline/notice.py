"""Before a source opens its listeners: was its machine failed over? (R14)

Production must not depend on the vault: one that does not answer in time, or cannot be read, keeps
no listener closed. Only the operator's signed record does; and once it was read, the state folder
remembers it, so that a vault that is away does not make two machines of one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import trio

from pipeline.assembly import read_pins
from pipeline.config.model import Config
from pipeline.hands import settled
from pipeline.state import StateFolder
from stages.errors import BackstayError, TrustMismatch
from stages.ports import Machine
from stages.store.open import open_store
from stages.vault.charter import check_pin, load
from stages.vault.failover_log import FailoverNotice, failed_over
from stages.vault.failover_state import Phase
from stages.vault.failovers import FailoverPoint

SECONDS = 5.0
_PARALLEL = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looked:
    """The notice, if there is one; ``trouble``: why it could not be looked for, or ""."""

    notice: FailoverNotice | None = None
    trouble: str = ""


async def listener_notice(
    ports: Machine, url: str, trust: str, groups: Mapping[bytes, bytes], *, seconds: float = SECONDS
) -> Looked:
    """Was the machine failed over? Bounded by ``seconds``; raises nothing but cancellation.

    ``url`` and ``trust`` (a file) as in the configuration; ``groups``: by vault id, the group that
    the machine's state folder writes there.
    """
    ports = replace(ports, offload=_Abandoning())  # a vault's mount may hang for ever
    with trio.move_on_after(seconds):
        try:
            store = open_store(url, ports)
            try:
                charter = await load(store, None)
                pins = [pin for pin in read_pins(ports, trust) if pin.vault == charter.vault]
                if not pins:
                    raise TrustMismatch("not the pinned vault", operation="trust", subject=url)
                check_pin(charter, pins[0], url)
                group = groups.get(charter.vault)
                if group is None:
                    return Looked()  # it has nothing there yet
                return Looked(await failed_over(store, group, charter))
            finally:
                await store.aclose()
        except BackstayError as error:
            return Looked(trouble=str(error))
        except OSError as error:
            return Looked(trouble=error.strerror or str(error))
    return Looked(trouble=f"{url}: the vault did not answer in {seconds:g} s")


async def source_notices(
    ports: Machine,
    config: Config,
    state: StateFolder,
    names: Collection[str],
    *,
    seconds: float = SECONDS,
) -> dict[str, Looked]:
    """``listener_notice`` for machines of a configuration, side by side and as bounded.

    What a vault said last counts where it says nothing now. An exchange of a machine's record that
    was cut short is finished first. Raises ``StateError``, ``NoSpace``.
    """
    found = {name: Looked(trouble="the vault did not answer") for name in names}
    limit = trio.CapacityLimiter(_PARALLEL)

    async def look(name: str) -> None:
        if not settled(ports.files, state, name):  # which group it has is not decided
            found[name] = Looked(trouble="its record is being exchanged by another command")
            return
        groups = groups_of(state, name)
        if not groups:
            found[name] = Looked()
            return
        vault = config.vault_of(config.machine(name))
        async with limit:
            found[name] = await listener_notice(
                ports, vault.address, vault.trust, groups, seconds=seconds
            )

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(look, name)
    return {name: _remembered(state, name, looked) for name, looked in found.items()}


def _remembered(state: StateFolder, name: str, looked: Looked) -> Looked:
    """Keep what was found; where nothing could be, what was kept."""
    path = f"failovers/{name}"
    kept = state.noted(path)
    if looked.trouble:
        notice = notice_from(kept) if kept else None
        return replace(looked, notice=notice)
    fields = notice_fields(looked.notice) if looked.notice is not None else {}
    if fields != (kept or {}):
        state.note(path, fields)
    return looked


def notice_fields(notice: FailoverNotice) -> dict[str, Any]:
    """As JSON."""
    point = notice.point
    return {
        "group": notice.group.hex(),
        "phase": notice.phase.value,
        "host": notice.host,
        "by": notice.by,
        "stamp": notice.stamp,
        "point": [point.seq, point.digest.hex(), point.stamp] if point else None,
        "branch": notice.branch.hex() if notice.branch else None,
        "planned": notice.planned,
    }


def notice_from(fields: Mapping[str, Any]) -> FailoverNotice | None:
    """Undo ``notice_fields``; None for what is none."""
    try:
        seq, digest, stamp = fields["point"] or (0, "", 0)
        return FailoverNotice(
            bytes.fromhex(fields["group"]),
            Phase(fields["phase"]),
            str(fields["host"]),
            str(fields["by"]),
            int(fields["stamp"]),
            FailoverPoint(int(seq), bytes.fromhex(digest), int(stamp)) if seq else None,
            bytes.fromhex(fields["branch"]) if fields["branch"] else None,
            bool(fields["planned"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def groups_of(state: StateFolder, name: str) -> dict[bytes, bytes]:
    """By vault id: the groups that a state folder has a record of. Unreadable ones are left out:
    who ships will say so."""
    found: dict[bytes, bytes] = {}
    for vault in state.machine_vaults(name):
        with suppress(BackstayError, ValueError, KeyError, TypeError):
            fields = state.noted(f"machines/{name}/{vault}/identity") or {}
            found[bytes.fromhex(vault)] = bytes.fromhex(fields["group"])
    return found


class _Abandoning:
    """Threads that nobody waits for when the time is up: they only read."""

    async def run(self, call: Callable[[], T]) -> T:
        """See ``Offload``, but for the waiting."""
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)

    def lock(self) -> AbstractContextManager[object]:
        """A thread lock."""
        return threading.Lock()
