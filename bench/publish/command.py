"""``bench publish``: results into the folder that is kept, and their section into the README."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bench.cli_compare import Unread, load
from bench.publish.marks import Page, Unmarked
from bench.publish.slim import Private, slim
from bench.record import WrongFile, as_text

OTHER = 1
RESULTS, README = Path("bench/results"), Path("README.md")
_FILE = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=_FILE)
@click.option("--readme", type=_FILE, default=README, show_default=True, help="The page.")
@click.option("--results", type=_FILE, default=RESULTS, show_default=True, help="What is kept.")
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the page is not so.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def publish(
    runs: tuple[Path, ...], readme: Path, results: Path, check: bool, as_json: bool
) -> None:
    """Put the results of RUNs into README.md, between its marks.

    RUN is a folder that 'bench --out RUN' wrote, or a result.json. Each is kept as
    RESULTS/NAME.json, NAME being that of the folder, without series and without folders of this
    machine; the page's section is made from what is kept, in the order given. Without a RUN it is
    made anew from the files that the page names.
    """
    try:
        page = Page.read(readme)
        if check:
            _check(page, as_json)
            return
        kept = [_keep(run, results) for run in runs]
        text = page.with_files(kept) if kept else page.as_named()
        readme.write_text(text, encoding="utf-8")
    except (Unmarked, Private, WrongFile) as error:
        raise Unread(str(error)) from None
    except OSError as error:
        raise Unread(f"{error.filename or readme}: {error.strerror or error}") from None
    written = [str(one) for one in (*kept, readme)]
    click.echo(json.dumps({"written": written}) if as_json else f"written: {', '.join(written)}")


def _check(page: Page, as_json: bool) -> None:
    same = page.as_named() == page.text()
    if as_json:
        click.echo(json.dumps({"page": str(page.path), "same": same}))
    if not same:
        click.echo(
            f"{page.path}: its performance section is not what 'python -m bench publish' makes of "
            f"{', '.join(page.names)}",
            err=True,
        )
        sys.exit(OTHER)


def _keep(run: Path, results: Path) -> Path:
    file = run / "result.json" if run.is_dir() else run
    name = file.resolve().parent.name if file.name == "result.json" else file.stem
    target = results / f"{name}.json"
    results.mkdir(parents=True, exist_ok=True)
    target.write_text(as_text(slim(load(file))), encoding="utf-8")
    return target
