"""``demo``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.console import emit, human, json_option
from stages.errors import BackstayError, UsageError

if TYPE_CHECKING:
    from pipeline.demo.story import Step


@click.command()
@click.option("--dir", "folder", help="Work here and keep everything (a new folder).")
@json_option
def demo(folder: str | None, as_json: bool) -> None:
    """Protect a disk that is being written to, kill the daemon, destroy all, recover. No root, no
    questions.

    Needs e2fsprogs (mkfs.ext4, debugfs, e2fsck) and about 2 GiB in the temporary folder. If
    something is not as it should be, what there is stays there, and it is said where.
    """
    from pipeline.demo.story import check_place

    if folder is not None:
        path = Path(folder).resolve()
        check_place(path)
        _make(path, folder)
        _run(path, as_json)
        return
    path = Path(tempfile.mkdtemp(prefix="backstay-demo-")).resolve()
    keep = False
    try:
        _run(path, as_json)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        keep = any(path.iterdir())
        raise
    finally:
        if not keep:
            shutil.rmtree(path)


def _make(path: Path, folder: str) -> None:
    try:
        path.mkdir(parents=True)
    except OSError as error:
        what = "exists already" if path.exists() else error.strerror or str(error)
        hint = "give the path of a folder that can be made"
        raise UsageError(what, operation="demo", subject=folder, hint=hint) from None


def _run(folder: Path, as_json: bool) -> None:
    from pipeline.demo.story import Demo

    def tell(step: Step) -> None:
        if not as_json:
            click.echo(f"{step.seconds:6.2f} s  {step.title:50} {step.result}")

    played = Demo(folder, tell)
    try:
        played.run()
    except BackstayError as error:
        kept = f"everything is kept in {folder}"
        error.hint = f"{error.hint}; {kept}" if error.hint else kept
        raise
    steps = [
        {"title": step.title, "seconds": step.seconds, "result": step.result}
        for step in played.steps
    ]
    total = sum(step.seconds for step in played.steps)
    fields = {
        "steps": steps,
        "points": played.points,
        "figures": played.figures,
        "identical": True,
    }
    emit(as_json, fields, f"{total:6.2f} s  {_summary(played.figures)}")


def _summary(figures: dict[str, Any]) -> str:
    return (
        "both moments are back, identical to what the guest knew\n"
        f"{'':10}{figures['writes']} writes and {figures['flushes']} flushes acknowledged; "
        f"{figures['points']} recovery points, the newest {figures['newest_age_seconds']} s old "
        f"when all was shipped; {human(figures['vault_bytes'])} in the vault"
    )
