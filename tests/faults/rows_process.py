"""Ctrl-C, SIGTERM, kill -9, two at once, a reader that goes away: rows with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from tests.faults.row import Row
from tests.faults.world import (
    ACCESS,
    MIB,
    OPERATOR,
    ROOT,
    Said,
    World,
    overwrite,
    random_bytes,
)

_RUN = ("run", "c.yaml", "--once", "--machine", "web1")
_RESTORE = ("restore", "web1", *ACCESS, "--to", "out")
_INIT = ("init", "file:./new", "--key", OPERATOR, "--single-recipient", "--state", "state2")
_READ = ("vault", "state", "root.img", "data.img", "op.key")
_EXTENDED = ("op.pub", "root.img", "data.img", "state/writer.key")
_GOES_ON = "nothing half-done; the same command goes on where it stopped"

PUT = "stages.store.file:FileStore.put"
COMMIT = "stages.ship.session:LogSession.advance"
GRADE = "stages.capture.scan:Scan._grade"
WINDOW = "stages.recover.restore:Restore._window"

Act = Callable[[World, tuple[str, ...]], Said]


def _ended(place: str, number: int, how: int) -> Act:
    """Let the command run up to a place, and end it there with a signal."""

    def act(world: World, argv: tuple[str, ...]) -> Said:
        process = _start(world, argv, "tests.faults.held", place, str(number))
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n", process.communicate()
        process.send_signal(how)
        return _end(process)

    return act


def _start(world: World, argv: tuple[str, ...], module: str, *first: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *first, *argv],
        cwd=world.root,
        env=os.environ | world.env | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=60)
    return Said(process.returncode, out, err)


def _beside_another(world: World, argv: tuple[str, ...]) -> Said:
    """Run the command while another one is held."""
    other = _start(world, argv, "tests.faults.held", COMMIT, "1")
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    said = world.backstay(*argv)
    other.kill()
    other.communicate()
    return said


def _unread(world: World, argv: tuple[str, ...]) -> Said:
    """Nobody reads what the command prints."""
    process = _start(world, argv, "pipeline.cli.main")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    return Said(process.wait(60), "", err)


def _run(world: World) -> tuple[str, ...]:
    overwrite(world.path("root.img"), {4 * MIB: random_bytes(MIB + 1)})
    return _RUN


def _hooked_run(world: World) -> tuple[str, ...]:
    for name in ("pre", "post"):
        path = world.path(name)
        path.write_text(f"#!/bin/sh\ntouch done-{name}\n")
        path.chmod(0o755)
    old = "{path: ./data.img, capture: scan}"
    new = "{path: ./data.img, capture: scan, snapshot: {pre: ./pre, post: ./post}}"
    world.path("c.yaml").write_text(world.path("c.yaml").read_text().replace(old, new))
    return _run(world)


def _thawed(world: World) -> None:
    assert world.path("done-pre").exists()
    assert world.path("done-post").exists()


def _restore(world: World) -> tuple[str, ...]:
    return _RESTORE


def _restore_goes_on(world: World) -> None:
    assert not list(world.path("out").glob("*.img"))
    world.fine(*_RESTORE)
    assert world.is_as_protected("out")
    left = {path.name for path in world.path("out").iterdir()}
    assert left == {"web1-root.img", "web1-data.img"}


def _init(world: World) -> tuple[str, ...]:
    return _INIT


def _init_goes_on(world: World) -> None:
    assert not world.path("new/vault.json").exists()
    world.fine(*_INIT)
    world.fine("vault", "check", "file:./new", "--key", OPERATOR)


def _points(world: World) -> tuple[str, ...]:
    return ("points", "web1", *ACCESS)


ROWS = (
    Row("Ctrl-C before a commit", _run, 130, kept=_EXTENDED, act=_ended(COMMIT, 2, signal.SIGINT), state=_GOES_ON),
    Row("Ctrl-C at the end of the scan", _run, 130, kept=_EXTENDED, act=_ended(GRADE, 1, signal.SIGINT), state=_GOES_ON),
    Row("Ctrl-C with a disk frozen", _hooked_run, 130, kept=_EXTENDED, act=_ended(GRADE, 1, signal.SIGINT), check=_thawed),
    Row("SIGTERM with a disk frozen", _hooked_run, 130, kept=_EXTENDED, act=_ended(GRADE, 1, signal.SIGTERM), check=_thawed),
    Row("kill -9 before a commit", _run, -9, kept=_EXTENDED, act=_ended(COMMIT, 2, signal.SIGKILL), state=_GOES_ON),
    Row("Ctrl-C during a restore", _restore, 130, kept=_READ, act=_ended(WINDOW, 2, signal.SIGINT), check=_restore_goes_on, state=_GOES_ON),
    Row("kill -9 during a restore", _restore, -9, kept=_READ, act=_ended(WINDOW, 2, signal.SIGKILL), check=_restore_goes_on, state=_GOES_ON),
    Row("Ctrl-C during init", _init, 130, kept=("vault", "state"), act=_ended(PUT, 1, signal.SIGINT), check=_init_goes_on, state=_GOES_ON),
    Row("kill -9 during init", _init, -9, kept=("vault", "state"), act=_ended(PUT, 1, signal.SIGKILL), check=_init_goes_on, state=_GOES_ON),
    Row("two runs at once", _run, 14, kept=_EXTENDED, act=_beside_another),
    Row("nobody reads the output", _points, 130, act=_unread),
)
