"""A planned failover from the source's side, and what it learns from the vault afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pipeline.daemon.link_client import IntakeGone
from pipeline.hands import holding, take
from pipeline.state import StateFolder
from stages.errors import StateLocked
from stages.system import this_machine
from tests import waiting
from tests.cli.support import KEYS, Place
from tests.daemon.running import (
    ask,
    died,
    prepare,
    qemu_io,
    replicating,
    restored_is_the_source,
    running,
)

WEB = ("web1", *KEYS)
CONFIRMED = ("--confirm", "web1")


@pytest.fixture
def place() -> Iterator[Place]:
    with TemporaryDirectory(prefix="bs-") as folder:  # short: sockets have short paths
        found = prepare(Path(folder))
        text = (found / "c.yaml").read_text()
        (found / "c.yaml").write_text(
            text.replace("{state: ./state}", "{state: ./state, retry: {probe: 1s}}")
        )
        yield found


def with_stop(place: Place, script: str) -> None:
    """A command that stops the guest."""
    command = place / "stop"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    text = (place / "c.yaml").read_text()
    change = "vault: standby\n    stop: {command: ./stop, timeout: 30s}\n"
    (place / "c.yaml").write_text(text.replace("vault: standby\n", change))


def protected(place: Place) -> None:
    """Everything written until now is in a point, and the daemon says so."""
    replicating(place)
    until(place, "replicating")


def view(place: Place) -> dict[str, Any]:
    said = waiting.until("a daemon", partial(place.unless, 8, "status", "--json"))
    assert said.code == 0, said
    return dict(said.fields["machines"][0])


def reasons_of(place: Place) -> dict[str, dict[str, Any]]:
    return {one["code"]: one for one in view(place)["reasons"]}


def until(place: Place, state: str, **more: Any) -> dict[str, Any]:
    """Wait until the daemon says so."""
    wanted = {"state": state, **more}

    def look() -> dict[str, Any] | None:
        found = view(place)
        return found if all(found[key] == value for key, value in wanted.items()) else None

    return waiting.until(lambda: view(place), look, pause=0.1)


def refuses(place: Place) -> bool:
    """No guest can get at the disk."""
    found = subprocess.run(
        ["nbdinfo", "--size", "nbd+unix:///root?socket=root.sock"],
        cwd=place.root,
        capture_output=True,
        check=False,
    )
    return found.returncode != 0


def test_prepared_failed_over_cancelled(place: Place) -> None:
    with_stop(place, 'echo "$BACKSTAY_MACHINE" >> stopped')
    with running(place) as daemon:
        protected(place)
        qemu_io(place, "write -P 9 0 64k")  # never flushed by the guest
        job = place.json("failover", "prepare", "web1", "--wait")["job"]
        assert [task["name"] for task in job["tasks"]] == [
            "stop the guest",
            "close the listeners",
            "ship the last writes",
        ]
        assert (place / "stopped").read_text() == "web1\n"
        found = until(place, "planned failover prepared")
        assert refuses(place)
        # Intake that is started again knows that nobody may come.
        intake = daemon.intake
        os.kill(intake, signal.SIGKILL)
        died(intake)
        waiting.until("intake that serves nobody", lambda: serves_nobody(place))
        assert refuses(place)
        done = place.json("failover", "planned", *WEB, *CONFIRMED)
        assert done["point"]["seq"] == found["failover"]["point"] == job["result"]["seq"]
        assert done["point"]["grade"] == "planned"
        assert done["planned"]
        until(place, "failed over, commit pending")
        refused = place.backstay("failover", "prepare", "web1")
        assert refused.code == 11
        place.json("failover", "cancel", *WEB, *CONFIRMED)
        until(place, "replicating")
        assert not refuses(place)
        qemu_io(place, "read -P 9 0 64k", "write -P 8 0 64k", "flush")
        protected(place)
        daemon.end()
    assert place.json("points", *WEB)["newest"] > done["point"]["seq"]


def serves_nobody(place: Place) -> bool:
    """Intake is there, and says that it lets nobody in."""
    try:
        found = ask(place / "state", "status")["machines"]["web1"]
    except (IntakeGone, KeyError):  # it is being started
        return False
    return "planned failover" in found["closed"]


def test_prepare_is_undone(place: Place) -> None:
    with running(place) as daemon:
        protected(place)
        place.json("failover", "prepare", "web1", "--wait")
        until(place, "planned failover prepared")
        (place / "vault").rename(place / "away")  # nobody can say whether it was failed over
        undone = place.backstay("failover", "prepare", "web1", "--undo", "--wait", *CONFIRMED)
        assert undone.code == 8
        assert refuses(place)
        (place / "away").rename(place / "vault")
        place.json("failover", "prepare", "web1", "--undo", "--wait", *CONFIRMED)
        until(place, "replicating")
        qemu_io(place, "write -P 7 0 64k", "flush")
        protected(place)
        # Somebody fails it over all the same, as planned: it is closed then, and until a cancel.
        place.json("failover", "planned", *WEB, *CONFIRMED, "--drained")
        qemu_io(place, "write -P 6 0 64k", "flush")  # served; its commit is fenced, which is seen
        until(place, "failed over, commit pending")
        waiting.until("closed listeners", lambda: refuses(place))
        place.json("failover", "cancel", *WEB, *CONFIRMED)
        until(place, "replicating")
        assert not refuses(place)
        daemon.end()


def test_a_guest_that_is_there_is_not_cut_off(place: Place) -> None:
    with running(place):
        protected(place)
        guest = place.root / "guest"
        with subprocess.Popen(
            ["qemu-io", "-f", "raw", "nbd+unix:///root?socket=root.sock"],
            cwd=place.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as qemu:
            assert qemu.stdin is not None
            assert qemu.stdout is not None
            qemu.stdin.write("write -P 5 0 64k\n")
            qemu.stdin.flush()
            waiting.heard(qemu.stdout, "wrote")
            failed = place.backstay("failover", "prepare", "web1", "--wait")
            assert failed.code == 7
            assert "stop the guest first" in failed.err
            qemu.stdin.write("write -P 6 0 64k\n")
            qemu.stdin.flush()
            waiting.heard(qemu.stdout, "wrote")
            qemu.stdin.close()
        assert not guest.exists()
        assert view(place)["state"] == "replicating"


def test_a_stop_command_that_fails_or_hangs(place: Place) -> None:
    with_stop(place, "test -e fails && { echo no; exit 3; }; exec sleep 600")
    text = (place / "c.yaml").read_text()
    (place / "c.yaml").write_text(text.replace("timeout: 30s", "timeout: 1s"))
    with running(place):
        protected(place)
        for why in ("took longer than 1 s", "exit code 3: no"):
            failed = place.backstay("failover", "prepare", "web1", "--wait")
            assert failed.code == 7
            assert why in failed.err
            assert view(place)["state"] == "replicating"
            qemu_io(place, "write -P 5 0 64k", "flush")  # its guest goes on
            (place / "fails").touch()


def test_killed_while_it_prepares(place: Place) -> None:
    """The guest was stopped, the vault is away: after kill -9 of the supervisor it goes on."""
    with running(place) as daemon:
        protected(place)
        qemu_io(place, "write -P 9 0 64k")
        os.kill(daemon.child("delivery_main"), signal.SIGSTOP)  # ships nothing
        job = place.json("failover", "prepare", "web1")["job"]
        waiting.until(
            "its last task",
            lambda: "ship the last writes" in json.dumps(place.json("job", "show", str(job["id"]))),
        )
        assert refuses(place)
        daemon.process.kill()
        daemon.process.wait()
        with running(place, ready="taken over") as again:
            until(place, "planned failover prepared")
            assert refuses(place)
            done = place.json("failover", "planned", *WEB, *CONFIRMED)
            assert done["point"]["grade"] == "planned"
            until(place, "failed over, commit pending")
            place.json("failover", "commit", *WEB, *CONFIRMED)
            until(place, "failover committed")
            again.process.kill()
            again.process.wait()
    place.json("restore", *WEB, "--to", "back")
    assert (place / "back/web1-root.img").read_bytes() == (place / "root.img").read_bytes()


def test_an_unplanned_failover_elsewhere_is_followed(place: Place) -> None:
    with running(place):
        protected(place)
        place.json("failover", "unplanned", *WEB, *CONFIRMED)
        qemu_io(place, "write -P 9 0 64k", "flush")  # the guest does not know yet
        found = until(place, "failed over, commit pending")
        assert found["failover"]["point"] > 0
        assert not found["failover"]["planned"]
        qemu_io(place, "write -P 8 0 64k", "flush")  # and is served
        place.json("failover", "cancel", *WEB, *CONFIRMED)
        until(place, "replicating")
        qemu_io(place, "write -P 7 0 64k", "flush")
        protected(place)


def test_a_guest_that_runs_on_keeps_its_machine(place: Place) -> None:
    """A committed failover elsewhere lets go of the disks here when nobody writes to them."""
    with running(place) as daemon:
        protected(place)
        files, state = this_machine().files, StateFolder(this_machine(), str(daemon.state), None)
        with subprocess.Popen(
            ["qemu-io", "-f", "raw", "nbd+unix:///root?socket=root.sock"],
            cwd=place.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as qemu:
            assert qemu.stdin is not None
            assert qemu.stdout is not None
            place.json("failover", "unplanned", *WEB, *CONFIRMED)
            place.json("failover", "commit", *WEB, *CONFIRMED)
            for _ in range(2):  # looks of the daemon at the vault, once its writes are refused
                qemu.stdin.write("write -P 6 0 64k\n")
                qemu.stdin.flush()
                waiting.heard(qemu.stdout, "wrote")
                until(place, "failover committed")
                with pytest.raises(StateLocked, match="captures it"):
                    take(files, state, "web1")
                daemon.heard("guests are connected")
            qemu.stdin.close()
        daemon.heard("its disks are let go of")
        assert refuses(place)
        with holding(files, state, "web1"):
            pass
        waiting.until("the reason", lambda: "away" in reasons_of(place))
        reasons = reasons_of(place)
        assert reasons["away"]["health"] == "warning"
        assert "intake" not in reasons


def test_a_disk_that_nobody_brought_home_is_compared(place: Place) -> None:
    """Reprotected where the old source still has what it wrote after the failover's point: the
    branch gets what the disk holds, whatever the journal says of another log."""
    text = (place / "c.yaml").read_text()
    (place / "c.yaml").write_text(text.replace("256MiB", "64MiB"))  # its files have 4 MiB
    with running(place) as daemon:
        protected(place)
        earlier = place.json("mark", "c.yaml", "web1")["seq"]
        for _ in range(4):
            qemu_io(place, "write -P 9 1M 4M", "flush")
        protected(place)
        place.json("failover", "unplanned", *WEB, *CONFIRMED, "--at", f"#{earlier}")
        place.json("failover", "commit", *WEB, *CONFIRMED)
        qemu_io(place, "write -P 8 2M 64k", "flush")  # it is refused by the vault
        daemon.heard("its disks are let go of")
        journal = sorted((place / "state" / "intake" / "web1" / "journal").iterdir())
        assert len(journal) > 1
        for file in journal[:-1]:  # as if it had been trimmed
            file.unlink()
        place.json("failover", "reprotect", *WEB, *CONFIRMED, "--state", "state")
        until(place, "replicating", direction="forward")
        assert not refuses(place)
        protected(place)
        restored_is_the_source(place)
