"""The command: which scenarios, how large, how often; what comes out and with which code."""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from bench import output, pictures
from bench.context import QUICK, Context, Scale
from bench.images import KINDS
from bench.inputs import SOURCES, InputFailed
from bench.peers import PEERS
from bench.record import as_fields
from bench.running import Recorder, code_of, run_all
from bench.scenarios import SCENARIOS
from bench.subjects import Backstay, Subject

DEFAULT_OUT = "bench-report"
QUICK_WITHIN = 240  # seconds: with the last scenario and the pictures it ends within five minutes
_LAST = "grid"  # of a quick run, as it tells least that is new: the splitter's loads, by size

_COMMANDS: dict[str, tuple[str, str]] = {
    "compare": ("bench.cli_compare", "Say what differs between two result files."),
    "report": ("bench.cli_compare", "Draw pictures and page anew from a result file."),
    "publish": ("bench.publish.command", "Put results into README.md, or check what it says."),
    "tune": ("bench.tune.command", "Find a faster pipeline for a configuration."),
}


class _Commands(click.Group):
    """Commands beside the measuring itself, which is what is done without one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in _COMMANDS:
            return None
        found = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGUMENTS]...]",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--list", "list_only", is_flag=True, help="Show scenarios and subjects, and leave.")
@click.option("--only", multiple=True, metavar="SCENARIO", help="Run these only; repeatable.")
@click.option("--quick", is_flag=True, help="Small inputs, once: does it work? Not for figures.")
@click.option("--repeat", type=click.IntRange(1, 100), help="Turns of each subject.  [default: 3]")
@click.option("--size", type=click.IntRange(8, 65536), help="MiB of files in the disk image.")
@click.option("--away", type=click.IntRange(1, 7200), help="Seconds without a vault (catchup).")
@click.option("--input", type=click.Choice(KINDS), default="system", help="What the image holds.")
@click.option("--from", "sources", multiple=True, help="Fill the image from this folder instead.")
@click.option("--cache", type=click.Path(path_type=Path), help="Keep disk images in this folder.")
@click.option("--work", type=click.Path(path_type=Path, exists=True), help="Where copies go.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write result.json, pictures and report.html there.  "
    f"[default: {DEFAULT_OUT}; nowhere with --json]",
)
@click.option(
    "--within",
    type=click.IntRange(1),
    metavar="SECONDS",
    help=f"Begin no scenario later than that.  [default: {QUICK_WITHIN} with --quick]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def bench(
    ctx: click.Context,
    list_only: bool,
    only: tuple[str, ...],
    quick: bool,
    repeat: int | None,
    size: int | None,
    away: int | None,
    input: str,  # noqa: A002 - as the option is called
    sources: tuple[str, ...],
    cache: Path | None,
    work: Path | None,
    out: Path | None,
    within: int | None,
    as_json: bool,
) -> None:
    """Measure Backstay beside other programs and beside what this machine can do at most.

    Every figure is measured in this run. A goal that is short is a result, not an error: the exit
    code is 0. It is 1 if any copy came back with other bytes, and 3 if Backstay did not run.
    """
    if ctx.invoked_subcommand is not None:
        return
    subjects: tuple[Subject, ...] = (Backstay(), *(peer() for peer in PEERS))
    if list_only:
        _list(subjects, as_json)
        return
    unknown = [name for name in only if name not in SCENARIOS]
    if unknown:
        raise click.UsageError(
            f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}"
        )
    folder = out or (None if as_json else Path(DEFAULT_OUT))
    if folder:
        _prepare(folder)
    with tempfile.TemporaryDirectory(prefix="backstay-bench-", dir=work) as made:
        context = Context(
            work=Path(made),
            cache=cache or Path(made, "images"),
            repeat=repeat or (1 if quick else 3),
            subjects=subjects,
            scale=_scale(quick, size, away),
            input=input,
            sources=tuple(str(Path(source).resolve()) for source in sources) or SOURCES,
            say=_teller(),
        )
        _measure(context, only, folder, as_json, within or (QUICK_WITHIN if quick else math.inf))


def _teller(clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """Says what is done now, and when: seconds since the beginning."""
    began = clock()
    return lambda text: click.echo(f"… {clock() - began:3.0f} s  {text}", err=True)


def _scale(quick: bool, size: int | None, away: int | None) -> Scale:
    scale = QUICK if quick else Scale()
    if size:
        scale = scale.with_content(size << 20)
    return scale.with_away(away) if away else scale


def _measure(
    context: Context, only: tuple[str, ...], folder: Path | None, as_json: bool, within: float
) -> None:
    """Run, show, write; leaves with the exit code."""
    recorder = Recorder(context.work, sys.argv[1:], context.scale)
    chosen = {name: one for name, one in SCENARIOS.items() if not only or name in only}
    if context.scale.few and _LAST in chosen:
        chosen[_LAST] = chosen.pop(_LAST)
    try:
        outcomes = run_all(
            context,
            chosen,
            quiet=as_json,
            recorder=recorder,
            within=within,
            keep=lambda found: output.keep(folder, found) if folder else None,
        )
    except InputFailed as error:
        raise click.ClickException(str(error)) from None
    result = recorder.result(outcomes)
    if as_json:
        click.echo(json.dumps(as_fields(result), indent=1))
    if folder:
        report = output.write(folder, result)[-1]
        click.echo(f"… written: {report} and {report.with_name(output.RESULT)}", err=True)
        if lacking := pictures.missing():
            click.echo(f"… {lacking}", err=True)
    sys.exit(code_of(outcomes))


def _prepare(folder: Path) -> None:
    """Before an hour of measuring rather than after it."""
    try:
        output.prepare(folder)
    except OSError as error:
        raise click.BadParameter(f"{folder}: {error.strerror}", param_hint="--out") from None


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
