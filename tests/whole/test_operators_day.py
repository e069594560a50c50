"""An operator's day, with real daemons, real guests, and the commands that a person gives."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests import waiting
from tests.cli.support import KEYS, Place, same
from tests.daemon.running import PATIENCE, Daemon, died, prepare, running
from tests.failover.test_cli import serving

MIB = 1 << 20
WEB = ("web1", *KEYS)
CONFIRMED = ("--confirm", "web1")
HERE = """\
daemon: {state: ./state, retry: {probe: 1s}}
vaults:
  standby: {url: "file:./vault", trust: ./op.pub}
pipelines:
  default: {cache: {seal_after: 100ms, journal_limit: 256MiB}}
machines:
  web1:
    vault: standby
    stop: {command: ./stop-web1}
    disks:
      root: {path: ./root.img, capture: nbd, listen: "unix:./root.sock"}
  db1:
    vault: standby
    disks:
      data: {path: ./db1.img, capture: nbd, listen: "unix:./db1.sock"}
"""
THERE = """\
daemon: {state: ./there-state, retry: {probe: 1s}}
vaults:
  standby: {url: "file:./vault", trust: ./op.pub}
pipelines:
  default: {cache: {seal_after: 100ms, journal_limit: 256MiB}}
machines:
  web1:
    vault: standby
    disks:
      root: {path: ./there.img, capture: nbd, listen: "unix:./there.sock"}
"""


@pytest.fixture
def place() -> Iterator[Place]:
    with TemporaryDirectory(prefix="bs-") as folder:  # short: sockets have short paths
        made = prepare(Path(folder))
        (made / "c.yaml").write_text(HERE)
        (made / "there.yaml").write_text(THERE)
        (made / "db1.img").write_bytes(os.urandom(MIB))
        (made / "stop-web1").write_text("#!/bin/sh\necho stopped >> web1.stopped\n")
        (made / "stop-web1").chmod(0o755)
        yield made


def guest(place: Place, uri: str, *commands: str) -> None:
    """A guest does something, and is answered."""
    words = [word for each in commands for word in ("-c", each)]
    said = place.call("qemu-io", "-f", "raw", *words, uri)
    assert "failed" not in said, said  # a pattern that is not there is no error of the program


def offered(place: Place, uri: str) -> None:
    """Wait until clients may come."""

    def answers() -> bool:  # its listeners are being opened
        words = ["nbdinfo", uri]
        done = subprocess.run(words, check=False, cwd=place.root, capture_output=True)
        return done.returncode == 0

    waiting.until(f"a server at {uri}", answers)


WEB_DISK = "nbd+unix:///root?socket=root.sock"
DB_DISK = "nbd+unix:///data?socket=db1.sock"
THERE_DISK = "nbd+unix:///root?socket=there.sock"


@contextmanager
def busy(place: Place, uri: str) -> Iterator[None]:
    """A guest that writes all the time, and whose every write has to succeed."""
    script = f"while :; do qemu-io -f raw -c 'write -P 3 768k 16k' -c flush '{uri}' || exit; done"
    process = subprocess.Popen(["sh", "-c", script], cwd=place.root, stdout=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(PATIENCE)


def view(place: Place, machine: str = "web1", api: str = "state") -> dict[str, Any]:
    words = ("status", "--api", f"unix:./{api}/api.sock", "--json")
    said = waiting.until("a daemon", partial(place.unless, 8, *words))
    assert said.code == 0, said
    found = said.fields["machines"]
    return dict(next(one for one in found if one["name"] == machine))


def until(
    place: Place,
    state: str,
    machine: str = "web1",
    api: str = "state",
    direction: str = "forward",
) -> dict[str, Any]:
    """Wait until the daemon says so."""

    def look() -> dict[str, Any] | None:
        found = view(place, machine, api)
        return found if (found["state"], found["direction"]) == (state, direction) else None

    return waiting.until(lambda: view(place, machine, api), look, pause=0.1)


def point(place: Place, config: str = "c.yaml", machine: str = "web1") -> int:
    """A point now: what was written before is in the vault. A gap is waited for."""
    words = ("mark", config, machine, "--wait", "60", "--json")
    said = waiting.until("the end of a gap", partial(place.unless, 7, *words))
    assert said.code == 0, said
    return int(said.fields["seq"])


def over(place: Place, *words: str) -> dict[str, Any]:
    return place.json("failover", *words, *CONFIRMED)


def cut_off(place: Place) -> None:
    """The vault's mount vanishes; guests go on, the ladder says when it is tried again."""
    (place / "vault").rename(place / "elsewhere")
    guest(place, WEB_DISK, "write -P 2 0 64k", "flush")
    guest(place, DB_DISK, "write -P 2 0 64k", "flush")

    def tried() -> dict[str, Any] | None:
        ladder = view(place)["ladder"]
        if not ladder["attempt"]:
            guest(place, WEB_DISK, "write -P 2 0 64k", "flush")
        return dict(ladder) if ladder["attempt"] else None

    ladder = waiting.until("the ladder's first step", tried)
    assert ladder["last"]["recoverable"]
    assert ladder["next_try_us"] > time.time_ns() // 1000
    guest(place, WEB_DISK, "read -P 2 0 64k", "write -P 4 64k 64k", "flush")
    (place / "elsewhere").rename(place / "vault")
    for machine in ("web1", "db1"):
        place.backstay("retry", machine)
    point(place)


def rehearsed(place: Place) -> None:
    """A test failover, while the source is written to."""
    with busy(place, WEB_DISK):
        over(place, "test", *WEB)
        with serving(place, "--test", "--folder", "test") as replica:
            uri = replica.uri()
            guest(place, uri, "read -P 2 0 64k", "write -P 9 0 64k", "read -P 9 0 64k", "flush")
            replica.end()
        place.json("failover", "cleanup", *WEB, "--folder", "test", "--note", "it answers")
    guest(place, WEB_DISK, "read -P 2 0 64k")  # nothing of the test is here
    assert not any((place / "test").glob("*"))


def moved(place: Place, api: str, image: str, onto: str) -> None:
    """Planned, committed, and the disks where production goes on."""
    place.json("failover", "prepare", "web1", "--wait", "--api", f"unix:./{api}/api.sock")
    until(place, "planned failover prepared", api=api)
    done = over(place, "planned", *WEB)
    assert done["point"]["grade"] == "planned"
    until(place, "failed over, commit pending", api=api)
    over(place, "commit", *WEB)
    until(place, "failover committed", api=api)
    place.json("restore", *WEB, "--onto", f"root={onto}", *CONFIRMED)
    assert same(place / onto, place / image)


def the_other_side(place: Place, daemon: Daemon) -> None:
    """Production over there, protected from there; then home again, only what differs."""
    (place / "there.img").touch()
    os.truncate(place / "there.img", (place / "root.img").stat().st_size)
    moved(place, "state", "root.img", "there.img")
    assert (place / "web1.stopped").read_text() == "stopped\n"
    refused = place.backstay("failover", "reprotect", *WEB, "--state", "there-state", *CONFIRMED)
    assert "backstay vault admit" in refused.err
    writer = refused.err.split("--writer ")[1].split()[0].strip("'")
    place.json("vault", "admit", *KEYS[1:], "--writer", writer, "--name", "there")
    over(place, "reprotect", *WEB, "--state", "there-state")
    until(place, "replicating", direction="reverse")
    guest(place, DB_DISK, "read -P 2 0 64k", "write -P 5 0 64k", "flush")  # meanwhile as ever
    point(place, machine="db1")
    intake = daemon.intake
    with busy(place, DB_DISK), other(place) as there:  # the daemon here serves its other guests
        until(place, "replicating", api="there-state")
        guest(place, THERE_DISK, "read -P 4 64k 64k", "write -P 6 128k 64k", "flush")
        point(place, "there.yaml")
        moved(place, "there-state", "there.img", "root.img")
        over(place, "reprotect", *WEB, "--state", "state")
        until(place, "replicating", api="there-state", direction="reverse")
        until(place, "replicating")  # taken up again by itself
        offered(place, WEB_DISK)
        there.send_signal(signal.SIGTERM)
        assert there.wait(PATIENCE) == 0
        guest(place, WEB_DISK, "read -P 6 128k 64k", "write -P 10 256k 64k", "flush")
        point(place)
        assert daemon.intake == intake
    place.json("restore", *WEB, "--to", "home")
    assert same(place / "home" / "web1-root.img", place / "root.img")


@contextmanager
def other(place: Place) -> Iterator[subprocess.Popen[str]]:
    process = place.start("run", "there.yaml")
    daemon = Daemon(place, process, place / "there-state")
    try:
        daemon.heard("intake: serving")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
def test_a_day(place: Place) -> None:
    with running(place) as daemon:
        for machine in ("web1", "db1"):
            until(place, "replicating", machine)
        said = place.backstay("events", "--json").out
        assert said.count("initial replication") >= 2
        guest(place, WEB_DISK, "write -P 1 0 64k", "flush")
        point(place)
        cut_off(place)
        rehearsed(place)
        the_other_side(place, daemon)
    with running(place) as daemon:
        until(place, "replicating")
        guest(place, WEB_DISK, "read -P 6 128k 64k", "write -P 7 192k 64k", "flush")
        earlier = point(place)
        guest(place, WEB_DISK, "write -P 8 192k 64k", "flush")
        later = point(place)
        intake = daemon.intake
        os.kill(intake, signal.SIGKILL)  # the host burns down
        daemon.process.kill()
        daemon.process.wait()
        died(intake)
    (place / "root.img").unlink()
    done = over(place, "unplanned", *WEB, "--at", f"#{later}")
    assert done["point"]["seq"] == later
    over(place, "change-point", *WEB, "--at", f"#{earlier}")
    over(place, "commit", *WEB)
    with serving(place, "--folder", "served") as replica:
        uri = replica.uri()
        guest(place, uri, "read -P 7 192k 64k", "read -P 6 128k 64k", "read -P 2 0 64k")
        replica.end()
