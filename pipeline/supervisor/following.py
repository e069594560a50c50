"""The lifecycle of a source follows what the vault says of its failover (R14).

Looked at only where there may be something: a machine that delivery calls fenced, that was handed
over, or that is away. Others cost the vault nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from pipeline.control.model import Direction, State
from pipeline.daemon.link_client import IntakeGone
from pipeline.lifecycle.away import toward
from pipeline.notice import Looked, groups_of, notice_fields, source_notices
from stages.errors import BackstayError, Fenced, SourceBusy
from stages.vault.failover_log import FailoverNotice
from stages.vault.failover_state import Phase

if TYPE_CHECKING:
    from pipeline.supervisor.machine import Protected
    from pipeline.supervisor.parts import Parts

_AWAY = frozenset(
    {
        State.PREPARED,
        State.FAILING_OVER,
        State.COMMIT_PENDING,
        State.COMMITTED,
        State.REPROTECTING,
    }
)
_GONE = frozenset({Phase.COMMITTED, Phase.REPROTECTED, Phase.CLOSED})
_RESTS = frozenset({State.DISABLED, State.DISABLING, State.MIGRATED})
_STEP_SECONDS = 1.0
_SEEN_SECONDS = 5.0  # intake is looked at each second


async def follow_vaults(parts: Parts, machines: Mapping[str, Protected]) -> None:
    """Look as often as at a vault that is away (``daemon.retry.probe``), until cancelled; and at
    once for a machine of which it is new that it may be away."""
    while True:
        if names := _away(machines):
            try:
                found = await source_notices(parts.ports, parts.config, parts.state, names)
            except BackstayError as error:  # the state folder cannot be written
                parts.tell(f"failover records: {error}")
                found = {}
            for name, looked in found.items():
                if name in machines:
                    await _follow(parts, machines[name], looked)
        waited = 0.0
        while waited < parts.config.daemon.retry.probe and _away(machines) <= names:
            await parts.ports.clock.sleep(_STEP_SECONDS)
            waited += _STEP_SECONDS


def _away(machines: Mapping[str, Protected]) -> set[str]:
    return {name for name, one in machines.items() if _may_be_away(one)}


def _may_be_away(one: Protected) -> bool:
    now, problem = one.record.situation, one.record.problem
    if now.state in _RESTS or one.name not in one.parts.config.machines:
        return False
    fenced = problem is not None and problem.error == Fenced.__name__
    away = now.state in _AWAY or now.direction is Direction.REVERSE
    return away or fenced or _is_unserved(one)


def _is_unserved(one: Protected) -> bool:
    """Intake runs, and does not have it."""
    live = one.parts.config.machine(one.name).live
    return live and one.look.at > float("-inf") and one.look.row is None


async def _follow(parts: Parts, one: Protected, looked: Looked) -> None:
    if looked.trouble and looked.notice is None:
        return
    phase = Phase.NONE if looked.notice is None else looked.notice.phase
    kept = None if looked.notice is None else _kept(looked.notice)
    try:
        if not phase.is_over and _is_unserved(one) and not await _open(parts, one):
            return  # a command has it in hand, and is not through: again at the next look
        moved = await parts.ports.offload.run(lambda: _has_moved(parts, one))
        for happening in toward(one.record.situation, phase, moved=moved):
            await one.happen(happening, failover=kept)
        if looked.notice is not None and looked.notice.planned:
            await _close(one)
        if looked.notice is not None and phase in _GONE and one.look.row is not None:
            await _let_go(parts, one, looked.notice)
    except IntakeGone:
        return  # the next one opens what may be opened
    except BackstayError as error:
        parts.tell(f"{one.name}: {error}")  # again at the next look


def _has_moved(parts: Parts, one: Protected) -> bool:
    """What is kept of its failover is of another group than those that this folder writes now."""
    known = (one.record.failover or {}).get("group", "")
    groups = groups_of(parts.state, one.name)
    return bool(groups) and known not in {group.hex() for group in groups.values()}


async def _open(parts: Parts, one: Protected) -> bool:
    """Before the machine's state says so. What keeps its disks from being served is told, and does
    not keep it from being what the vault says; False if somebody else has the machine in hand."""
    try:
        answer = await parts.capturing.ask("open", machine=one.name)
    except IntakeGone:
        raise
    except BackstayError as error:
        parts.tell(f"{one.name}: {error}")
        return True
    for line in answer["said"]:
        parts.tell(line)
    if answer["served"]:
        with trio.move_on_after(_SEEN_SECONDS):
            while one.look.row is None:  # else its state would be told before what is served
                await one.changed()
    return bool(answer["served"])


async def _close(one: Protected) -> None:
    """Its guest was stopped for this: none may come back here. One that is there is served (R14),
    and looked at again."""
    if one.look.row is not None and not one.record.closed:
        with suppress(SourceBusy):
            await one.let_guests(come=False)


async def _let_go(parts: Parts, one: Protected, notice: FailoverNotice) -> None:
    """It will not be taken back: its disks are for whoever brings production home, and so is what
    is kept of it, while other machines are served on. A guest that runs here is served (R14)."""
    try:
        await parts.capturing.ask("release", machine=one.name, reason=notice.described)
    except SourceBusy:
        parts.tell(
            f"{one.name}: {notice.described}; its disks are not let go of: guests are connected"
        )
        return
    parts.tell(f"{one.name}: its disks are let go of: {notice.described}")


def _kept(notice: FailoverNotice) -> dict[str, object]:
    """What is kept with the machine, and shown of it."""
    fields = notice_fields(notice)
    point = notice.point
    return {
        **fields,
        "point": 0 if point is None else point.seq,
        "stamp_us": 0 if point is None else point.stamp,
        "branch": fields["branch"] or "",
    }
