"""Views of a machine and of the daemon, made of what is in memory: they cost nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.config.model import Config
from pipeline.control.model import Direction, Health, Ladder, Operation, Problem, Reason, State
from pipeline.control.views import DiskView, FailoverView, MachineView, Scan, StageView
from pipeline.lifecycle.rules import allowed
from pipeline.supervisor.facts import Look
from pipeline.supervisor.records import MachineRecord

_ORDER = (Health.NORMAL, Health.WARNING, Health.CRITICAL)
_GAPS = (State.WAITING_FOR_RESYNC, State.RESYNCHRONIZING, State.RESYNC_SUSPENDED)
_STARTS = (State.CHECKING, State.READY, State.INITIAL_REPLICATION, State.FINALIZING)
_US = 1_000_000


def machine_view(
    config: Config,
    record: MachineRecord,
    look: Look,
    said: Mapping[str, Any],
    point: Mapping[str, Any] | None,
    *,
    rpo: float | None,
    now_us: int,
    eta: float | None,
    possible: Sequence[Operation],
) -> MachineView:
    """``point``: the newest consistent one, as it was noted. ``possible``: what no job excludes, of
    what the table allows."""
    machine = config.machine(record.name)
    row = look.row or {}
    sockets = row.get("disks", {})
    ladder = ladder_view(said)
    reasons = machine_reasons(record, look, ladder, live=machine.live)
    return MachineView(
        name=record.name,
        state=record.situation.state,
        direction=record.situation.direction,
        test=record.situation.test,
        health=worst(reasons),
        reasons=reasons,
        allowed=tuple(one for one in allowed(record.situation) if one in possible),
        vault=machine.vault,
        policy=machine.policy,
        disks=tuple(
            DiskView(name, int(row.get("sizes", {}).get(name, 0)), disk.path, sockets.get(name, ""))
            for name, disk in machine.disks.items()
        ),
        rpo_seconds=shown_rpo(rpo, look, point, now_us),
        point=None if point is None else int(point["seq"]),
        point_stamp_us=None if point is None else int(point["stamp"]),
        journal_bytes=int(row.get("journal_bytes", 0)),
        journal_limit=int(row.get("journal_limit", 0)),
        shipped_bytes=int(said.get("shipped_bytes", 0)),
        ladder=ladder,
        scan=_scan(look, eta),
        failover=failover_view(record.failover),
        job=record.job,
        stages=tuple(StageView(**one) for one in said.get("stages", ())),
    )


def ladder_view(said: Mapping[str, Any]) -> Ladder:
    """Where delivery stands."""
    if said.get("state") not in ("waiting", "failed"):
        return Ladder()
    last = Problem(
        str(said.get("error", "")),
        str(said.get("message", "")),
        str(said.get("hint", "")),
        bool(said.get("recoverable", False)),
        int(said.get("exit_code", 1)),
    )
    return Ladder(int(said.get("attempt", 1)), last, said.get("next_try_us"))


def failover_view(fields: Mapping[str, Any] | None) -> FailoverView | None:
    """What the operations of a failover have kept, if it is one."""
    if fields is None or not {"point", "stamp_us", "branch"} <= fields.keys():
        return None
    return FailoverView(
        int(fields["point"]),
        int(fields["stamp_us"]),
        bool(fields.get("consistent", False)),
        bool(fields.get("planned", False)),
        str(fields["branch"]),
        dict(fields.get("sockets", {})),
    )


def machine_reasons(
    record: MachineRecord, look: Look, ladder: Ladder, *, live: bool
) -> tuple[Reason, ...]:
    """Why it is not well, by what the supervisor itself knows; the worst first."""
    state, found = record.situation.state, []
    if state is State.CRITICAL:
        problem = record.problem
        message, hint = (problem.message, problem.hint) if problem else ("delivery failed", "")
        found.append(Reason("critical", Health.CRITICAL, message, hint))
    elif ladder.last is not None:
        found.append(Reason("ladder", Health.WARNING, ladder.last.message, ladder.last.hint))
    if live and look.row is None:
        found += _unserved(record)
    elif look.row is not None and look.row["unlogged"]:
        found.append(Reason("state-disk", Health.CRITICAL, str(look.row["unlogged"])))
    if state in _GAPS:
        why = "" if look.row is None else str(look.row["reason"])
        hint = "start it with 'backstay resync'" if record.held else ""
        text = f"newer states are not consistent{': ' if why else ''}{why}"
        found.append(Reason("gap", Health.WARNING, text, hint))
    elif state in _STARTS:
        found.append(Reason("initial", Health.WARNING, f"not protected yet: {state.value}"))
    if state in (State.SUSPENDED, State.RESYNC_SUSPENDED):
        found.append(Reason("suspended", Health.WARNING, "replication is suspended"))
    if state is State.DISABLED and record.problem is not None:
        found.append(Reason("prerequisites", Health.CRITICAL, record.problem.message))
    return tuple(sorted(found, key=lambda reason: -_ORDER.index(reason.health)))


def _unserved(record: MachineRecord) -> tuple[Reason, ...]:
    """Its disks are not served: as it should be where its production is elsewhere."""
    state, reverse = record.situation.state, record.situation.direction is Direction.REVERSE
    if state is State.MIGRATED or (reverse and state is State.REPLICATING):
        return ()
    if state is State.COMMITTED:
        text = f"its production is elsewhere, and not protected yet{_by_whom(record)}"
        hint = "protect it there with 'backstay failover reprotect', or migrate it"
        return (Reason("away", Health.WARNING, text, hint),)
    if state is State.COMMIT_PENDING:
        text = f"its production is elsewhere: its disks stay closed here{_by_whom(record)}"
        hint = (
            f"to have it here again: 'backstay failover cancel {record.name}', given with the key"
        )
        return (Reason("away", Health.CRITICAL, text, hint),)
    return (Reason("intake", Health.CRITICAL, "its disks are not served now"),)


def _by_whom(record: MachineRecord) -> str:
    """Who failed it over, where and when, if the vault's records said so."""
    found = record.failover or {}
    if not {"by", "host", "stamp"} <= found.keys():
        return ""
    when = datetime.fromtimestamp(int(found["stamp"]) / _US, UTC)
    return f" (failed over by {found['by']} on {found['host']} at {when:%Y-%m-%d %H:%M:%S} UTC)"


def worst(reasons: Sequence[Reason]) -> Health:
    """The worst wins."""
    return max((reason.health for reason in reasons), key=_ORDER.index, default=Health.NORMAL)


def with_reasons(view: MachineView, more: Sequence[Reason]) -> MachineView:
    """What others know, for example policies, in addition."""
    codes = {reason.code for reason in view.reasons}
    reasons = (*view.reasons, *(reason for reason in more if reason.code not in codes))
    return replace(view, reasons=reasons, health=worst(reasons))


def shown_rpo(
    rpo: float | None, look: Look, point: Mapping[str, Any] | None, now_us: int
) -> float | None:
    """What is shown and judged, in seconds: of a consistent point, so in a gap, or where nobody
    knows since when writes wait, the age of the last one. None without one."""
    if point is None:
        return None
    if rpo is not None and look.capture == "replicating":
        return rpo
    return max(0.0, (now_us - int(point["stamp"])) / _US)


def _scan(look: Look, eta: float | None) -> Scan | None:
    row = look.row
    if row is None or look.capture not in ("scanning", "waiting to scan"):
        return None
    return Scan(int(row["scan_done"]), int(row["scan_total"]), eta)
