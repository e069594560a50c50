"""``bench tune CONFIG``: what to ask for, and how the answer is shown and written."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bench.context import MEMORY_GOAL, Context, Scale
from bench.images import KINDS
from bench.inputs import InputFailed
from bench.measure import CommandFailed
from bench.results import MIB
from bench.tune import shown
from bench.tune.edit import changed, difference
from bench.tune.plan import Rules, Verdict, search
from bench.tune.runner import Budget, Runner, WrongCopy, drive
from bench.tune.space import Option, Setting, options, sections, setting_of
from pipeline.config import load
from pipeline.config.model import Config
from stages import durable
from stages.errors import BackstayError, UsageError
from stages.system import this_machine

WRONG_DATA = 1
DID_NOT_RUN = 3
SECONDS = 1800.0
CONTENT = 512 * MIB
QUICK_SECONDS = 100.0  # the rest of two minutes is for what is already under way
QUICK_CONTENT = 64 * MIB
QUICK_RULES = {"pairs": 3, "final": 5, "step_alpha": 0.125}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The tuned copy.  [CONFIG.tuned.yaml]")
@click.option("--overwrite", is_flag=True, help="OUT may exist; also if it is CONFIG itself.")
@click.option("--pipeline", help="Which one to tune.  [default: the only one, or 'default']")
@click.option("--option", "only", multiple=True, help="Tune only this, like compress.level.")
@click.option(
    "--prefer",
    type=click.Choice(["balance", "speed"]),
    default="balance",
    help="speed: stored bytes may grow by any amount.  [default: balance]",
)
@click.option(
    "--growth", type=click.FloatRange(0, 1000), default=2.0, help="% more stored.  [default: 2]"
)
@click.option(
    "--memory",
    type=click.IntRange(1, 1 << 20),
    default=int(MEMORY_GOAL),
    help="MiB it may use, or as much as now.  [default: 300]",
)
@click.option("--quick", is_flag=True, help="Under two minutes: small image, few pairs.")
@click.option(
    "--size",
    type=click.IntRange(8, 65536),
    help=f"MiB of files in the disk image.  [default: {CONTENT // MIB}; quick: "
    f"{QUICK_CONTENT // MIB}]",
)
@click.option("--input", type=click.Choice(KINDS), default="system", help="What the image holds.")
@click.option(
    "--seconds",
    type=click.IntRange(1),
    help=f"Begin nothing new after so long.  [default: {SECONDS:g}; quick: {QUICK_SECONDS:g}]",
)
@click.option("--cache", type=click.Path(path_type=Path), help="Keep disk images in this folder.")
@click.option("--work", type=click.Path(path_type=Path, exists=True), help="Where copies go.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def tune(
    config: Path,
    out: Path | None,
    overwrite: bool,
    pipeline: str | None,
    only: tuple[str, ...],
    prefer: str,
    growth: float,
    memory: int,
    quick: bool,
    size: int | None,
    input: str,  # noqa: A002 - as the option is called
    seconds: int | None,
    cache: Path | None,
    work: Path | None,
    as_json: bool,
) -> None:
    """Find a faster pipeline for CONFIG on this machine; write it to a copy of CONFIG.

    Initial replication of a disk image made here, into vaults made here: neither the machines nor
    the vaults of CONFIG are touched. An option is changed only where paired runs say that the gain
    is more than noise. Without a gain nothing is written, and the exit code is 0 all the same.
    """
    with _refusals():
        loaded = load(str(config))
        target = _target(config, out, overwrite)
        name = _pipeline(loaded, pipeline)
        chosen = _options(only)
    rules = Rules(
        memory=memory * MIB,
        growth=None if prefer == "speed" else growth / 100,
        **(QUICK_RULES if quick else {}),  # type: ignore[arg-type]
    )
    budget = Budget(seconds or (QUICK_SECONDS if quick else SECONDS), rules.final, rules.pairs)
    content = size * MIB if size else QUICK_CONTENT if quick else CONTENT
    with tempfile.TemporaryDirectory(prefix="backstay-tune-", dir=work) as folder, _failures():
        context = _context(Path(folder).resolve(), cache, content, input)
        verdict, runs = _tuned(context, loaded, name, chosen, rules, budget)
    start = setting_of(loaded.pipelines[name])
    change = {one: verdict.setting[one] for one in difference(start, verdict.setting)}
    if change:
        text = changed(config.read_text(), str(config), name, change)
        _write(target, text)
    written = target if change else None
    if as_json:
        click.echo(json.dumps(shown.as_fields(start, verdict, runs, written), indent=1))
    else:
        shown.show(start, verdict, runs, written, budget)


@contextmanager
def _refusals() -> Iterator[None]:
    """What was asked for cannot be done: end as the program itself would."""
    try:
        yield
    except BackstayError as error:
        click.echo(str(error), err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(error.exit_code)


@contextmanager
def _failures() -> Iterator[None]:
    """A measurement that went wrong: say so, and end with a code of its own."""
    try:
        yield
    except WrongCopy as error:
        click.echo(f"wrong data: {error}", err=True)
        sys.exit(WRONG_DATA)
    except (CommandFailed, InputFailed) as error:
        click.echo(str(error), err=True)
        sys.exit(DID_NOT_RUN)


def _context(work: Path, cache: Path | None, content: int, kind: str) -> Context:
    return Context(
        work=work,
        cache=cache or work / "images",
        repeat=1,
        subjects=(),
        scale=Scale(content=content),
        input=kind,
        say=lambda text: click.echo(f"… {text}", err=True),
    )


def _tuned(
    context: Context,
    config: Config,
    name: str,
    chosen: tuple[Option, ...],
    rules: Rules,
    budget: Budget,
) -> tuple[Verdict, int]:
    pipeline = config.pipelines[name]
    start = setting_of(pipeline)
    runner = Runner(context, _fixed(config, name, start))
    runner.prepare()
    verdict = drive(search(start, chosen, rules), runner.once, budget, context.say)
    return verdict, runner.runs


def _fixed(config: Config, name: str, start: Setting) -> Mapping[str, Mapping[str, Any]]:
    """What the pipeline has besides the options."""
    tuned = sections(start)
    whole = config.pipelines[name].model_dump()
    return {
        section: {key: value for key, value in values.items() if key not in tuned[section]}
        for section, values in whole.items()
        if section in tuned
    }


def _target(config: Path, out: Path | None, overwrite: bool) -> Path:
    target = out or config.with_name(f"{config.stem}.tuned{config.suffix}")
    if target.resolve().parent != config.resolve().parent:
        raise UsageError(
            "it would lie in another folder than CONFIG",
            operation="tune",
            subject=str(target),
            hint="paths in a configuration count from its folder: write it beside CONFIG",
        )
    if target.exists() and not overwrite:
        raise UsageError(
            "it is there already",
            operation="tune",
            subject=str(target),
            hint="--out names another file; --overwrite replaces this one",
        )
    return target


def _pipeline(config: Config, wanted: str | None) -> str:
    name = wanted or (next(iter(config.pipelines)) if len(config.pipelines) == 1 else "default")
    if name not in config.pipelines:
        raise UsageError(
            f"no pipeline is called {name}",
            operation="tune",
            subject=config.source,
            hint=f"--pipeline takes one of: {', '.join(config.pipelines)}",
        )
    return name


def _options(only: tuple[str, ...]) -> tuple[Option, ...]:
    there = {one.name: one for one in options()}
    for name in only:
        if name not in there:
            hint = f"there are: {', '.join(there)}"
            raise UsageError("no such option", operation="tune", subject=name, hint=hint)
    return tuple(there[name] for name in only) or tuple(there.values())


def _write(target: Path, text: str) -> None:
    ports = this_machine()
    token = ports.entropy.token(8).hex()
    durable.replace(ports.files, str(target.resolve()), text.encode(), token=token)
