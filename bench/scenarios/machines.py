"""Many machines in one configuration: how soon all are protected, and what they cost when idle."""

from __future__ import annotations

from bench.context import Context, Gathered
from bench.many import MACHINE_BYTES, Idle, Many, Started
from bench.results import MIB, Goal, Outcome, Sample, find

TITLE = "many machines in one daemon"
START_GOAL = 10.0  # seconds
IDLE_GOAL = 0.05  # processors
AXIS = "machines"
_PROCESSES = ("supervisor", "intake", "delivery")
COLUMNS = (
    ("serving", "serves s"),
    ("captured", "all shipped s"),
    ("replicating", "all replicate s"),
    ("again", "again: serves s"),
    ("again_replicating", "again: all s"),
    ("idle", "idle cores"),
    *((f"idle_{name}", f"{name} idle") for name in _PROCESSES),
    *((f"rss_{name}", f"{name} MiB") for name in _PROCESSES),
    *((f"pss_{name}", f"{name} PSS") for name in _PROCESSES),
)


def run(context: Context) -> Outcome:
    """Each turn and number: a first start with initial replication, a rest, an end, and another
    start."""
    gathered = Gathered()
    for turn in range(context.repeat):
        for count in context.scale.machines:
            context.say(f"turn {turn + 1}: {count} machines")
            gathered.attempt(_name(count), _turn, context, gathered, count)
    entries = gathered.entries()
    most = max(context.scale.machines)
    entry = find(entries, _name(most))
    return Outcome(
        scenario="machines",
        title=TITLE,
        entries=entries,
        goals=tuple(
            Goal(text.format(most), entry.median(name) if entry else None, goal, False, unit)
            for text, name, goal, unit in (
                (
                    "{} machines: first start, all replicate",
                    "replicating",
                    START_GOAL,
                    "s",
                ),
                ("{} machines: all replicate again", "again_replicating", START_GOAL, "s"),
                ("{} machines: idle", "idle", IDLE_GOAL, "cores"),
            )
        ),
        notes=(
            f"disks of {MACHINE_BYTES >> 10} KiB each, one for each machine; a file vault",
            "first start: no state, all is read, shipped and committed; again: after a SIGTERM",
            f"idle: all processes together over {context.scale.idle:g} s; nobody writes or asks",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=COLUMNS,
        axis=(AXIS, "machines"),
    )


def _name(count: int) -> str:
    return f"{count} machines"


def _turn(context: Context, gathered: Gathered, count: int) -> None:
    many = Many(context.folder(f"machines-{count}"), count)
    with many.started() as first:
        idle = many.idle(context.scale.idle)
        many.end()
    with many.started() as again:
        many.end()
    gathered.add(_name(count), _sample(count, first, again, idle))
    many.remove()


def _sample(count: int, first: Started, again: Started, idle: Idle) -> Sample:
    figures = {
        AXIS: float(count),
        "serving": first.serving,
        "captured": first.captured,
        "replicating": first.replicating,
        "again": again.serving,
        "again_replicating": again.replicating,
        "idle": idle.share,
    }
    for name in _PROCESSES:
        figures[f"idle_{name}"] = idle.shares.get(name, 0.0)
        figures[f"rss_{name}"] = idle.resident.get(name, 0) / MIB
        figures[f"pss_{name}"] = idle.shared_out.get(name, 0) / MIB
    return Sample(
        seconds=first.replicating,
        cpu=first.cpu,
        peak=sum(idle.resident.values()),
        shared_out=sum(idle.shared_out.values()) or None,
        figures=figures,
    )
