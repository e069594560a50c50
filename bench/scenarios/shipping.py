"""Initial replication to an object store, beside the same puts alone and beside a file vault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from bench.context import Context, Gathered, brought_back, sample_of, timed
from bench.measure import CommandFailed, checked
from bench.results import Entry, Goal, Outcome, find, ratio
from bench.servers.cloud import SERVERS, running
from bench.subjects import BACKSTAY, Backstay, Subject, json_of, python_command

TITLE = "initial replication to object stores on this machine"
FILE = f"{BACKSTAY}: file vault"
SHARE = 0.9
IN_FLIGHT = 4  # as the default configuration has it

NewUrl = Callable[[], str]


def run(context: Context) -> Outcome:
    """Start the servers that are installed, then ``measure``."""
    with ExitStack() as stack:
        places: dict[str, NewUrl] = {}
        absent = []
        for name, server in SERVERS.items():
            if missing := server.missing():
                absent.append(f"{name} is left out: {missing}")
                continue
            if context.scale.few and places:
                absent.append(f"{name} is left out: one store in a quick run")
                continue
            context.say(f"starting {name}")
            cloud = stack.enter_context(running(name, context.folder(f"server {name}")))
            places[name] = cloud.url
        return measure(context, places, absent)


def measure(context: Context, places: Mapping[str, NewUrl], absent: list[str]) -> Outcome:
    """Each turn: a file vault, and for each store the pipeline, then its objects put alone."""
    gathered = Gathered()
    subject = context.subject(BACKSTAY)
    for turn in range(context.repeat):
        if subject is None:
            break
        context.say(f"turn {turn + 1}: {FILE}")
        gathered.attempt(FILE, _pipeline, context, gathered, FILE, subject)
        for name, new_url in places.items():
            context.say(f"turn {turn + 1}: {name}")
            gathered.attempt(through(name), _store, context, gathered, name, new_url, subject)
    entries = gathered.entries()
    return Outcome(
        scenario="shipping",
        title=TITLE,
        entries=entries,
        goals=tuple(
            Goal(
                f"speed to {name}, of the slower of its puts alone and a file vault",
                share(entries, through(name), (alone(name), FILE)),
                SHARE,
                True,
            )
            for name in places
        ),
        notes=(
            context.image_note(),
            f"puts alone: the objects of the vault just written, {IN_FLIGHT} at a time",
            "goals hold the time inside: start-up of all programs is left out",
            "the server runs on the same processors: what it takes, the pipeline does not have",
            "every copy was restored and compared, every object that was put alone too",
            *absent,
            *context.absent(),
        ),
        reference=FILE,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(("moved", "moved MiB"),),
    )


def through(name: str) -> str:
    """The pipeline to a store."""
    return f"{BACKSTAY}: {name}"


def alone(name: str) -> str:
    """The same puts without the pipeline."""
    return f"puts alone: {name}"


def share(entries: tuple[Entry, ...], mine: str, others: tuple[str, ...]) -> float | None:
    """Speed of ``mine``, of the slowest of ``others``, by medians of the time inside."""
    times = [entry.median("inner") for name in others if (entry := find(entries, name))]
    known = [time for time in times if time is not None]
    entry = find(entries, mine)
    if entry is None or len(known) < len(others):
        return None
    return ratio(max(known), entry.median("inner"))


def _pipeline(context: Context, gathered: Gathered, name: str, subject: Subject) -> None:
    copy = subject.open(context.folder("copy"), context.image())
    done = timed(copy.backup(), copy.folder, copy.image)
    if brought_back(context, copy, gathered, f"shipping: the copy of {name}"):
        figures, stages = copy.figures(done.output), copy.stages(done.output)
        gathered.add(name, sample_of(done, figures=figures, stages=stages))
    shutil.rmtree(copy.folder)


def _store(
    context: Context, gathered: Gathered, name: str, new_url: NewUrl, subject: Subject
) -> None:
    url = new_url()
    there = subject.at(url) if isinstance(subject, Backstay) else subject
    _pipeline(context, gathered, through(name), there)
    gathered.attempt(alone(name), _alone, context, gathered, name, url, new_url())


def _alone(context: Context, gathered: Gathered, name: str, url: str, other: str) -> None:
    folder, logs = context.folder("objects"), context.folder("puts")
    taken = json_of(checked(python_command("bench.puts", "take", url, str(folder)), logs).output)
    if not taken.get("right"):
        raise CommandFailed("the vault holds no objects")
    words = ("put", other, str(folder), "--in-flight", str(IN_FLIGHT))
    done = checked(python_command("bench.puts", *words), logs)
    found = json_of(done.output)
    looked = checked(python_command("bench.puts", "check", other, str(folder)), logs)
    if found.get("right") and json_of(looked.output).get("right"):
        figures = {"inner": float(found["seconds"]), "moved": float(found["bytes"]) / (1 << 20)}
        gathered.add(alone(name), sample_of(done, figures=figures))
    else:
        gathered.wrong.append(f"shipping: the objects put alone into {name}")
    shutil.rmtree(folder)
