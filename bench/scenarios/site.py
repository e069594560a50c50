"""Initial replication to a second site, beside curl putting the same objects there."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.context import Context, Gathered, brought_back, sample_of, timed
from bench.measure import Command, CommandFailed, checked
from bench.puts import keys
from bench.results import Goal, Outcome, find, ratio
from bench.servers.site import Site, site
from bench.subjects import BACKSTAY, Backstay, Subject, python_command

TITLE = "initial replication to a second site over TLS, on this machine"
PIPELINE = f"{BACKSTAY}: site"
CURL = "curl -T of the same objects"
SHARE = 0.7


def run(context: Context) -> Outcome:
    """Each turn: the pipeline to an empty vault of the site, then curl to another."""
    gathered = Gathered()
    curl = shutil.which("curl")
    subject = context.subject(BACKSTAY)
    pairs = [(f"pipeline{turn}", f"curl{turn}") for turn in range(context.repeat)]
    command = python_command("pipeline.cli.main")
    vaults = [name for pair in pairs for name in pair]
    with site(context.folder("site"), vaults, command) as served:
        for turn, (mine, plain) in enumerate(pairs):
            if subject is None:
                break
            context.say(f"turn {turn + 1}")
            gathered.attempt(PIPELINE, _pipeline, context, gathered, subject, served.url(mine))
            if curl:
                gathered.attempt(CURL, _curl, context, gathered, served, mine, plain, curl)
    entries = gathered.entries()
    through, beside = find(entries, PIPELINE), find(entries, CURL)
    speed = ratio(
        beside.median("seconds") if beside else None, through.median("inner") if through else None
    )
    return Outcome(
        scenario="site",
        title=TITLE,
        entries=entries,
        goals=(Goal("speed, of curl -T of the same objects", speed, SHARE, True),),
        notes=(
            context.image_note(),
            "curl: all objects in one call, one after the other; its whole time counts",
            "the pipeline's start-up is left out",
            "the site runs on the same processors: what it takes, the pipeline does not have",
            "the copy was restored and compared; what curl put was compared with what it was given",
            *([] if curl else ["curl is left out: not installed"]),
            *context.absent(),
        ),
        reference=PIPELINE,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(("moved", "moved MiB"),),
    )


def _pipeline(context: Context, gathered: Gathered, subject: Subject, url: str) -> None:
    there = subject.at(url) if isinstance(subject, Backstay) else subject
    copy = there.open(context.folder("copy"), context.image())
    done = timed(copy.backup(), copy.folder, copy.image)
    if brought_back(context, copy, gathered, f"site: the copy of {BACKSTAY}"):
        figures, stages = copy.figures(done.output), copy.stages(done.output)
        gathered.add(PIPELINE, sample_of(done, figures=figures, stages=stages))
    shutil.rmtree(copy.folder)


def _curl(
    context: Context, gathered: Gathered, served: Site, mine: str, plain: str, curl: str
) -> None:
    objects, folder = served.path(mine), context.folder("curl")
    names = keys(objects)
    if not names:
        raise CommandFailed("the vault holds no objects")
    config = folder / "curl.conf"
    config.write_text(served.curl_config(plain, objects, names))
    files = [objects / name for name in names]
    done = timed(Command((curl, "-K", str(config))), folder, *files)
    if same(objects, served.path(plain), names):
        moved = sum(one.stat().st_size for one in files) / (1 << 20)
        gathered.add(CURL, sample_of(done, figures={"moved": moved}))
    else:
        gathered.wrong.append("site: the objects that curl put")
    checked(Command(("rm", "-rf", "--", str(served.path(plain) / "groups"))), folder)


def same(one: Path, other: Path, names: list[str]) -> bool:
    """Whether two folders hold the same objects."""
    return keys(other) == names and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )
