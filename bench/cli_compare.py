"""``compare`` and ``report``: what is done with result files that are there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from bench import output, pictures
from bench.comparing import shown, verdicts
from bench.comparing.verdicts import ALPHA
from bench.record import Result, WrongFile, read
from bench.running import WIDTH

SLOWER, USAGE = 1, 2


class Unread(click.ClickException):
    """A file that is not a result."""

    exit_code = USAGE


_FILE = click.Path(path_type=Path, dir_okay=False)


def load(path: Path) -> Result:
    """A result file; one that cannot be read ends the command with code 2."""
    try:
        return read(path)
    except WrongFile as error:
        raise Unread(str(error)) from None


@click.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option(
    "--alpha",
    type=click.FloatRange(0.0, shown.LOOSEST, min_open=True),
    default=ALPHA,
    show_default=True,
    help="How often noise alone may give a verdict, for each figure.",
)
@click.option("--fail-slower", is_flag=True, help="Exit code 1 if Backstay became slower.")
@click.option("--any-size", is_flag=True, help="Compare although the inputs had other sizes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def compare(
    old: Path, new: Path, alpha: float, fail_slower: bool, any_size: bool, as_json: bool
) -> None:
    """Say what differs between two result files, and how sure that is.

    Times of Backstay are held against the peer's in the same run, since machines and hours differ.
    There is a verdict only where turns differ by more than the noise between them.
    """
    before, after = load(old), load(new)
    if (differ := _sizes(before, after)) and not any_size:
        raise Unread(f"inputs had other sizes: {', '.join(differ)} (--any-size compares anyway)")
    found = verdicts.compare(before, after, alpha)
    if as_json:
        click.echo(json.dumps(shown.as_fields(found), indent=1))
    else:
        shown.show(Console(width=None if sys.stdout.isatty() else WIDTH), found)
    sys.exit(SLOWER if fail_slower and found.slower else 0)


def _sizes(old: Result, new: Result) -> list[str]:
    """What both runs know of their inputs and do not agree on."""
    return [
        f"{name} {old.scale[name]:g} and {new.scale[name]:g}"
        for name in old.scale
        if name in new.scale and old.scale[name] != new.scale[name]
    ]


@click.command()
@click.argument("result", type=_FILE)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Other folder.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the names of what was written as JSON."
)
def report(result: Path, out: Path | None, as_json: bool) -> None:
    """Draw pictures and page anew from RESULT, a result.json: beside it, or in another folder."""
    found, folder = load(result), out or result.parent
    try:
        output.prepare(folder)
        written = output.write(folder, found)
    except OSError as error:
        raise Unread(f"{folder}: {error.strerror or error}") from None
    lacking = pictures.missing()
    if as_json:
        names = [str(path) for path in written]
        click.echo(json.dumps({"written": names, "missing": lacking or None}, indent=1))
        return
    click.echo(f"written: {written[-1]}")
    if lacking:
        click.echo(lacking)
