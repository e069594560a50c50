"""Ctrl-C, SIGTERM, kill -9, two at once, a reader that goes away: rows with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from tests.faults.row import READ, RESTORE, RUN, SHIPPED, Row
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

_INIT = ("init", "file:./new", "--key", OPERATOR, "--single-recipient", "--state", "state2")
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
    with _start(world, argv, "pipeline.cli.main") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    return Said(process.returncode, "", err)


def _run(world: World) -> tuple[str, ...]:
    overwrite(world.path("root.img"), {4 * MIB: random_bytes(MIB + 1)})
    return RUN


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
    return RESTORE


def _restore_goes_on(world: World) -> None:
    assert not list(world.path("out").glob("*.img"))
    world.fine(*RESTORE)
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
    Row(
        "Ctrl-C before a commit",
        _run,
        130,
        sees=("\ninterrupted"),
        state=_GOES_ON,
        kept=SHIPPED,
        act=_ended(COMMIT, 1, signal.SIGINT),
    ),
    Row(
        "Ctrl-C at the end of the scan",
        _run,
        130,
        sees=("\ninterrupted"),
        state=_GOES_ON,
        kept=SHIPPED,
        act=_ended(GRADE, 1, signal.SIGINT),
    ),
    Row(
        "Ctrl-C with a disk frozen",
        _hooked_run,
        130,
        sees=("\ninterrupted"),
        kept=SHIPPED,
        check=_thawed,
        act=_ended(GRADE, 1, signal.SIGINT),
    ),
    Row(
        "SIGTERM with a disk frozen",
        _hooked_run,
        130,
        sees=("\ninterrupted"),
        kept=SHIPPED,
        check=_thawed,
        act=_ended(GRADE, 1, signal.SIGTERM),
    ),
    Row(
        "kill -9 before a commit",
        _run,
        -9,
        state=_GOES_ON,
        kept=SHIPPED,
        act=_ended(COMMIT, 1, signal.SIGKILL),
    ),
    Row(
        "Ctrl-C during a restore",
        _restore,
        130,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img\n"
            "\n"
            "interrupted"
        ),
        state=_GOES_ON,
        kept=READ,
        check=_restore_goes_on,
        act=_ended(WINDOW, 2, signal.SIGINT),
    ),
    Row(
        "kill -9 during a restore",
        _restore,
        -9,
        sees=(
            "point #{third} of web1, …, quiet\n"
            "  root: 8.0 MiB to new file out/web1-root.img\n"
            "  data: 1.0 MiB to new file out/web1-data.img"
        ),
        state=_GOES_ON,
        kept=READ,
        check=_restore_goes_on,
        act=_ended(WINDOW, 2, signal.SIGKILL),
    ),
    Row(
        "Ctrl-C during init",
        _init,
        130,
        sees=("\ninterrupted"),
        state=_GOES_ON,
        kept=("vault", "state"),
        check=_init_goes_on,
        act=_ended(PUT, 1, signal.SIGINT),
    ),
    Row(
        "kill -9 during init",
        _init,
        -9,
        state=_GOES_ON,
        kept=("vault", "state"),
        check=_init_goes_on,
        act=_ended(PUT, 1, signal.SIGKILL),
    ),
    Row(
        "two runs at once",
        _run,
        14,
        sees="backstay: open state: {root}/state: another Backstay process is using it",
        hint="wait for that run to end, or give this config a state folder of its own",
        kept=SHIPPED,
        act=_beside_another,
    ),
    Row(
        "nobody reads the output",
        _points,
        130,
        act=_unread,
    ),
)
