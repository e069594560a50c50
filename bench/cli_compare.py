"""``compare`` and ``report``: what is done with result files that are there."""

from __future__ import annotations

from pathlib import Path

import click

from bench import output, pictures
from bench.record import Result, WrongFile, read

USAGE = 2


class _Unread(click.ClickException):
    """A file that is not a result."""

    exit_code = USAGE


_FILE = click.Path(path_type=Path, dir_okay=False)


def load(path: Path) -> Result:
    """A result file; one that cannot be read ends the command with code 2."""
    try:
        return read(path)
    except WrongFile as error:
        raise _Unread(str(error)) from None


@click.command()
@click.argument("result", type=_FILE)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Other folder.")
def report(result: Path, out: Path | None) -> None:
    """Draw pictures and page anew from RESULT, a result.json: beside it, or in another folder."""
    found, folder = load(result), out or result.parent
    try:
        output.prepare(folder)
        written = output.write(folder, found)
    except OSError as error:
        raise _Unread(f"{folder}: {error.strerror or error}") from None
    click.echo(f"written: {written[-1]}")
    if lacking := pictures.missing():
        click.echo(lacking)
