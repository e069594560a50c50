"""A live daemon in processes of its own, and what happens to them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from pipeline.daemon.link_client import IntakeGone, command
from tests.cli.support import KEYS, MIB, Place
from tests.waiting import until

PATIENCE = 60.0  # seconds for a process to end: never reached unless something is wrong
SIZE = 12 * MIB + 4096
CONFIG = """\
daemon: {{state: {state}}}
vaults:
  standby: {{url: "file:./vault", trust: ./op.pub}}
pipelines:
  default: {{cache: {{seal_after: 100ms, journal_limit: 256MiB}}}}
machines:
  web1:
    vault: standby
    disks:
      root: {{path: ./root.img, capture: nbd, listen: "unix:./root.sock"{more}}}
"""


def prepare(root: Path, *, state: str = "./state", more: str = "") -> Place:
    """Keys, a vault, a disk with something in it, and a configuration."""
    place = Place(root)
    place.json("keygen", "--out", "op", "--no-passphrase")
    words = ("--key", "op.key", "--single-recipient", "--state", state)
    place.json("init", "file:./vault", *words)
    with (place / "root.img").open("wb") as image:
        image.truncate(SIZE)
        image.seek(3 * MIB)
        image.write(os.urandom(70_000))
    (place / "c.yaml").write_text(CONFIG.format(state=state, more=more))
    return place


def died(pid: int) -> None:
    """Wait for the end of a process, whoever's child it is."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} goes on"
    finally:
        os.close(descriptor)


@dataclass
class Daemon:
    """A running ``backstay run``."""

    place: Place
    process: subprocess.Popen[str]
    state: Path

    def heard(self, word: str) -> str:
        """Wait for a line with ``word`` on its standard error."""
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if word in line:
                return line
        raise AssertionError(f"it ended without saying {word!r}: {said}")

    def told(self) -> tuple[int, str]:
        """How it ended by itself, and what it said that nobody heard yet."""
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err

    def end(self, how: signal.Signals = signal.SIGTERM) -> str:
        """As a person or a service manager does: with 0, and nothing stays behind."""
        intake, delivery = self.intake, self.child("delivery_main")
        self.process.send_signal(how)
        code, err = self.told()
        assert code == 0, err
        assert err.endswith("stopped\n")
        died(intake)
        died(delivery)
        assert not (self.place / "root.sock").exists()
        return err

    @property
    def intake(self) -> int:
        """Its process number."""
        return int(ask(self.state, "status")["pid"])

    def child(self, module: str) -> int:
        """The parent's child that runs a module of the daemon; it is waited for."""

        def look() -> int:
            assert self.process.poll() is None, "the parent has ended"
            # It was started by one of the parent's threads, and is shown with that one.
            for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):
                    for child in (thread / "children").read_text().split():
                        if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                            return int(child)
            return 0

        return until(f"a child that runs {module}", look, pause=0.01)


def ask(state: Path, name: str) -> dict[str, Any]:
    """A command to intake. Raises ``IntakeGone``."""
    return trio.run(command, f"{state}/intake.sock", name)


@contextmanager
def running(
    place: Place,
    *arguments: str,
    state: str = "state",
    ready: str | None = "intake: serving",
    fork: bool = True,
) -> Iterator[Daemon]:
    """Run the daemon, and leave none of its processes behind. Without ``fork`` its supervisor is
    started as people start it, which takes much longer; intake and delivery always are."""
    begin = place.fork if fork else place.start
    process = begin("run", "c.yaml", *arguments)
    daemon = Daemon(place, process, place / state)
    try:
        if ready is not None:
            daemon.heard(ready)
        yield daemon
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
        with suppress(IntakeGone):
            pid = daemon.intake
            os.kill(pid, signal.SIGKILL)
            died(pid)


def qemu_io(place: Place, *commands: str) -> str:
    """Let a guest do something that has to succeed."""
    words = [word for each in commands for word in ("-c", each)]
    uri = "nbd+unix:///root?socket=root.sock"
    return place.call("qemu-io", "-f", "raw", *words, uri)


def replicating(place: Place) -> None:
    """Wait until the first scan is in the vault: then a mark is not lost."""
    for _ in range(100):
        said = place.backstay("mark", "c.yaml", "web1", "--wait", "30")
        if said.code != 7:  # a gap was open
            assert said.code == 0, said
            return
    raise AssertionError("the first scan does not end")


def comes_back(place: Place) -> None:
    """Wait until every machine replicates again, whatever it does meanwhile."""

    def states() -> list[str]:
        return [one["state"] for one in ask(place / "state", "status")["machines"].values()]

    until(states, lambda: set(states()) <= {"replicating"})


def restored_is_the_source(place: Place, folder: str = "back") -> None:
    """The newest point holds what the disk holds."""
    place.json("restore", "web1", *KEYS, "--to", folder)
    found = (place / f"{folder}/web1-root.img").read_bytes()
    assert found == (place / "root.img").read_bytes()
