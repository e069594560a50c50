"""``demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from pipeline.cli.console import emit, json_option
from stages.errors import UsageError


@click.command()
@click.option("--dir", "folder", help="Work here and keep everything (a new folder).")
@json_option
def demo(folder: str | None, as_json: bool) -> None:
    """Protect, change, destroy and recover a real disk image. No root, no questions.

    Needs e2fsprogs (mkfs.ext4, debugfs, e2fsck) and about 1 GiB in the temporary folder.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="backstay-demo-") as made:
            _run(Path(made), as_json)
        return
    path = Path(folder)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        what = "exists already" if path.exists() else error.strerror or str(error)
        hint = "give the path of a folder that can be made"
        raise UsageError(what, operation="demo", subject=folder, hint=hint) from None
    _run(path.resolve(), as_json)


def _run(folder: Path, as_json: bool) -> None:
    from pipeline.demo import Demo, Step

    def tell(step: Step) -> None:
        if not as_json:
            click.echo(f"{step.seconds:6.2f} s  {step.title:52} {step.result}")

    played = Demo(folder, tell)
    played.run()
    steps = [
        {"title": step.title, "seconds": step.seconds, "result": step.result}
        for step in played.steps
    ]
    total = sum(step.seconds for step in played.steps)
    emit(
        as_json,
        {"steps": steps, "points": played.points, "identical": True},
        f"{total:6.2f} s  both moments are back, identical to what was protected",
    )
