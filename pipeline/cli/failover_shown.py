"""What the ``failover`` commands print and ask."""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.cli.confirming import confirmed
from pipeline.cli.console import human, say
from pipeline.cli.moment import both_times, parse_at
from stages.errors import UsageError

if TYPE_CHECKING:
    from pipeline.control.model import Stake
    from pipeline.failover.model import Done, Standing, Wanted, Who
    from pipeline.failover.targets import Replica
    from stages.vault.failovers import FailoverPoint, FailoverRecord

_MOST = 255
WITHOUT_RECORD = (
    "; meanwhile 'backstay export' and 'backstay restore' bring the point back and write nothing "
    "there, but the old source is not fenced by them"
)


def whoever() -> Who:
    """Who gives the command, and on which host."""
    from pipeline.failover.model import Who

    return Who(*_names())


def reading(what: str) -> str:
    """Who reads a point, for its lease."""
    name, host = _names()
    return f"{what} by {name} on {host}"[:_MOST]


def _names() -> tuple[str, str]:
    """Of the user and of this host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user that the system has no name for
        name = f"uid {os.getuid()}"
    return name[:_MOST], (platform.node() or "unknown host")[:_MOST]


def wanted(point: str | None, at: str | None) -> tuple[Wanted, str]:
    """The point that is asked for, and a remark on the zone that was taken (or "")."""
    from pipeline.failover.model import PointKind, Wanted

    if at is None:
        return Wanted(PointKind(point or "latest")), ""
    chosen, remark = parse_at(at)
    return Wanted(PointKind.AT, chosen), remark


@dataclass
class Asking:
    """Says what is at stake and has it confirmed where it cannot be undone."""

    machine: str
    confirm: str | None
    as_json: bool
    remark: str
    said: list[str] = field(default_factory=list)

    def __call__(self, stake: Stake) -> None:
        """Raise ``UsageError`` if it is not confirmed."""
        lines = [f"{stake.operation.value} {stake.machine}", *_indented(stake.lines, self.remark)]
        wants = stake.irreversible or self.confirm is not None
        if not self.as_json or (wants and self.confirm is None and os.isatty(0)):
            self.said = lines
            for line in lines:
                say(line)
        if wants:
            try:
                self._confirm(stake)
            except UsageError as error:
                if not self.said:  # for a program all is one document
                    error.message = "\n  ".join([error.message, *lines])
                raise

    def _confirm(self, stake: Stake) -> None:
        confirmed(
            stake.operation.value,
            self.machine,
            self.confirm,
            hint=f"read what is at stake above; if that is right: --confirm {self.machine}",
            also=(stake.machine,),
            nothing="nothing was done",
        )


def done_fields(done: Done, dropped: list[str]) -> dict[str, Any]:
    """The result of an operation for JSON."""
    return {
        "operation": done.operation.value,
        "machine": done.machine,
        "group": done.group.hex(),
        "dry_run": done.rehearsed,
        "done_before": done.again,
        "before": done.before.phase.value,
        "state": done.state.phase.value,
        "test": done.state.test is not None,
        "branch": done.state.branch and done.state.branch.hex(),
        "planned": done.state.planned,
        "point": done.stake.facts["point"],
        "irreversible": done.stake.irreversible,
        "stake": list(done.stake.lines),
        "allowed": [event.value for event in done.state.allowed()],
        "dropped": dropped,
        "notes": list(done.notes),
    }


def done_text(done: Done, dropped: list[str]) -> str:
    """The same for people; what was at stake has been said unless nothing was done."""
    if done.rehearsed:
        head = f"{done.operation.value} {done.machine} would be done; nothing was"
        return "\n".join([head, *_indented(done.stake.lines, "")])
    lines = [f"{done.machine}: {done.state.described()}"]
    if done.state.branch is not None and done.state.phase.is_over:
        lines.append(f"branch: {done.state.branch.hex()}")
    lines += [f"dropped: {name}" for name in dropped]
    lines += [f"note: {note}" for note in done.notes]
    lines.append(done.stake.lines[-1])
    return "\n".join(lines)


def standing_fields(found: Standing) -> dict[str, Any]:
    """Where a machine stands, for JSON."""
    state = found.state
    return {
        "machine": found.machine,
        "group": found.group.hex(),
        "state": state.phase.value,
        "whole": found.whole,
        "planned": state.planned,
        "point": _point_fields(state.point),
        "branch": state.branch and state.branch.hex(),
        "test": state.test and _record_fields(state.test),
        "allowed": [event.value for event in state.allowed()],
        "newest": found.newest and {"seq": found.newest.seq, "stamp": found.newest.stamp},
        "records": [_record_fields(record) for record in found.log.records],
        "problems": list(found.log.problems),
        "notes": list(found.notes),
    }


def standing_text(found: Standing) -> str:
    """The same for people."""
    from pipeline.failover.stakes import both_times as times
    from stages.vault.failover_state import VERBS

    state = found.state
    lines = [f"{found.machine}: {state.described()}  (group {found.group.hex()})"]
    if state.point is not None and state.phase.is_over:
        lines.append(f"  point #{state.point.seq} of {times(state.point.stamp)}")
        lines.append(f"  branch {state.branch.hex() if state.branch else '-'}")
    if not found.whole:
        lines.append("  NOT FINISHED: give the same command again")
    if found.newest is not None:
        lines.append(f"  newest commit #{found.newest.seq}, {both_times(found.newest.time)}")
    for record in found.log.records:
        note = f": {record.note}" if record.note else ""
        point = f" point #{record.point.seq}" if record.point else ""
        lines.append(
            f"  {record.number}. {times(record.stamp)} {record.event}{point} "
            f"by {record.by} on {record.host}{note}"
        )
    lines.append(f"  allowed: {', '.join(VERBS[event] for event in state.allowed()) or 'nothing'}")
    lines += [f"problem: {problem}" for problem in found.log.problems]
    lines += [f"note: {note}" for note in found.notes if note not in found.log.problems]
    return "\n".join(lines)


def replica_fields(replica: Replica) -> dict[str, Any]:
    """A served replica for JSON."""
    return replica.as_fields("start") | {
        "exports": {disk.name: disk.uri for disk in replica.disks},
        "pid": os.getpid(),
    }


def replica_text(replica: Replica) -> str:
    """The same for people."""
    what = "test" if replica.test else "replica"
    lines = [f"{what} of {replica.machine}, point #{replica.point}, written to {replica.folder}"]
    lines += [f"{disk.name}: {disk.uri} ({human(disk.size)})" for disk in replica.disks]
    return "\n".join(lines)


def _indented(lines: tuple[str, ...], remark: str) -> list[str]:
    return [*([f"  note: {remark}"] if remark else []), *(f"  {line}" for line in lines)]


def _point_fields(point: FailoverPoint | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {"seq": point.seq, "stamp": point.stamp, "digest": point.digest.hex()}


def _record_fields(record: FailoverRecord) -> dict[str, Any]:
    return {
        "number": record.number,
        "event": record.event.value,
        "stamp": record.stamp,
        "host": record.host,
        "by": record.by,
        "point": _point_fields(record.point),
        "branch": record.branch and record.branch.hex(),
        "planned": record.planned,
        "note": record.note,
    }
