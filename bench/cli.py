"""The command: which scenarios, how large, how often; what comes out and with which code."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from bench.context import QUICK, Context, Scale
from bench.inputs import SOURCES, InputFailed
from bench.peers import PEERS
from bench.report import as_fields, show
from bench.results import Outcome
from bench.scenarios import SCENARIOS
from bench.subjects import BACKSTAY, Backstay, Subject

WRONG_DATA = 1
DID_NOT_RUN = 3


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--list", "list_only", is_flag=True, help="Show scenarios and subjects, and leave.")
@click.option("--only", multiple=True, metavar="SCENARIO", help="Run these only; repeatable.")
@click.option("--quick", is_flag=True, help="Small inputs, once: does it work? Not for figures.")
@click.option("--repeat", type=click.IntRange(1, 100), help="Turns of each subject.  [default: 3]")
@click.option("--size", type=click.IntRange(8, 65536), help="MiB of files in the disk image.")
@click.option("--away", type=click.IntRange(1, 7200), help="Seconds without a vault (catchup).")
@click.option("--from", "sources", multiple=True, help="Fill the image from this folder instead.")
@click.option("--cache", type=click.Path(path_type=Path), help="Keep disk images in this folder.")
@click.option("--work", type=click.Path(path_type=Path, exists=True), help="Where copies go.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def bench(
    list_only: bool,
    only: tuple[str, ...],
    quick: bool,
    repeat: int | None,
    size: int | None,
    away: int | None,
    sources: tuple[str, ...],
    cache: Path | None,
    work: Path | None,
    as_json: bool,
) -> None:
    """Measure Backstay beside other programs and beside what this machine can do at most.

    Every figure is measured in this run. A goal that is short is a result, not an error: the exit
    code is 0. It is 1 if any copy came back with other bytes, and 3 if Backstay did not run.
    """
    subjects: tuple[Subject, ...] = (Backstay(), *(peer() for peer in PEERS))
    if list_only:
        _list(subjects, as_json)
        return
    unknown = [name for name in only if name not in SCENARIOS]
    if unknown:
        raise click.UsageError(
            f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}"
        )
    scale = QUICK if quick else Scale()
    if size:
        scale = scale.with_content(size << 20)
    if away:
        scale = scale.with_away(away)
    with tempfile.TemporaryDirectory(prefix="backstay-bench-", dir=work) as folder:
        context = Context(
            work=Path(folder),
            cache=cache or Path(folder, "images"),
            repeat=repeat or (1 if quick else 3),
            subjects=subjects,
            scale=scale,
            sources=tuple(str(Path(source).resolve()) for source in sources) or SOURCES,
            say=lambda text: click.echo(f"… {text}", err=True),
        )
        try:
            outcomes = run_all(context, only or tuple(SCENARIOS), quiet=as_json)
        except InputFailed as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(as_fields(outcomes), indent=1))
    sys.exit(code_of(outcomes))


def run_all(context: Context, names: tuple[str, ...], *, quiet: bool) -> list[Outcome]:
    """Run scenarios in the order of the table; each is shown as soon as it is measured."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    outcomes = []
    for name, (title, scenario) in SCENARIOS.items():
        if name in names:
            context.say(title)
            outcomes.append(scenario(context))
            if not quiet:
                show(console, outcomes[-1])
    return outcomes


def code_of(outcomes: list[Outcome]) -> int:
    """The exit code: wrong data is an error, slowness is a measurement."""
    if any(outcome.wrong for outcome in outcomes):
        return WRONG_DATA
    failed = [line for outcome in outcomes for line in outcome.failed]
    return DID_NOT_RUN if any(line.startswith(f"{BACKSTAY}:") for line in failed) else 0


def _list(subjects: tuple[Subject, ...], as_json: bool) -> None:
    scenarios = {name: title for name, (title, _) in SCENARIOS.items()}
    there = {subject.name: subject.missing() for subject in subjects}
    if as_json:
        click.echo(json.dumps({"scenarios": scenarios, "subjects": there}, indent=1))
        return
    for name, title in scenarios.items():
        click.echo(f"{name:<12}{title}")
    click.echo()
    for name, missing in there.items():
        click.echo(f"{name:<32}{f'not installed: {missing}' if missing else 'installed'}")


def main() -> None:
    """Run the command."""
    bench(prog_name="python -m bench")
