"""The daemon as people run it: processes that are killed, signalled, started twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline.daemon.link_client import IntakeGone
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


def test_from_the_first_write_to_the_end(place: Place) -> None:
    """And to a second end, as a person at a terminal ends it."""
    with running(place, ready=None, fork=False) as daemon:
        assert daemon.heard("web1/root: ").endswith(f"socket={place.root}/root.sock\n")
        daemon.heard("intake: serving")
        qemu_io(place, "write -P 1 64k 128k", "write -P 2 5000 300", "write -z 1M 64k", "flush")
        replicating(place)
        (row,) = place.json("status", "c.yaml", "--folder")["machines"]
        assert row["live"]["state"] == "replicating"
        assert row["live"]["delivering"]
        qemu_io(place, "write -P 3 2M 4k", "flush")
        assert "not all was shipped" not in daemon.end(signal.SIGTERM)
    restored_is_the_source(place)
    (row,) = place.json("status", "c.yaml", "--folder")["machines"]
    assert row["live"] is None
    assert row["last_run"] == "not running: its disks are not served"
    with running(place, fork=False) as again:
        qemu_io(place, "read -P 3 2M 4k", "write -P 4 3M 4k", "flush")
        said = again.end(signal.SIGINT)
        assert "compared" not in said  # it was left clean
        assert "not all was shipped" not in said
    restored_is_the_source(place, "again")
    with running(place) as third:
        assert "compared" not in third.end()


def test_a_second_one_is_refused(place: Place) -> None:
    with running(place) as daemon:
        said = place.backstay("run", "c.yaml", "--json")
        assert said.code == 14
        assert said.error["error"] == "StateLocked"
        qemu_io(place, "write 0 4k", "flush")
        daemon.end()


def test_delivery_killed_again_and_again(place: Place) -> None:
    with running(place) as daemon:
        for number in range(1, 5):
            pid = daemon.child("delivery_main")
            qemu_io(place, f"write -P {number} {number}M 200k", "flush")
            os.kill(pid, signal.SIGKILL)
            daemon.heard("delivery: ended (-9)")
        replicating(place)
        daemon.end()
    restored_is_the_source(place)


def test_delivery_asked_to_end_ships_what_there_is(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        qemu_io(place, "write -P 7 0 4k", "flush")
        os.kill(daemon.child("delivery_main"), signal.SIGTERM)
        daemon.heard("delivery: ended (0)")
        restored_is_the_source(place)
        daemon.end()


def test_intake_outlives_its_parent_and_is_taken_over(place: Place) -> None:
    with running(place) as first:
        replicating(place)
        intake, delivery = first.intake, first.child("delivery_main")
        first.process.kill()
        died(first.process.pid)
        died(delivery)  # it ends with its parent
        qemu_io(place, "write -P 9 1M 100k", "flush")
        assert first.intake == intake
        with running(place, ready=f"(process {intake}), taken over") as second:
            replicating(place)
            assert second.intake == intake
            second.end()
    restored_is_the_source(place)


def test_intake_killed_is_started_again(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        qemu_io(place, "write -P 4 3M 100k", "flush")
        before = daemon.intake
        os.kill(before, signal.SIGKILL)
        daemon.heard("intake: gone")
        daemon.heard("intake: serving")
        assert daemon.intake != before
        qemu_io(place, "write -P 5 4M 100k", "flush")
        replicating(place)
        daemon.end()
    restored_is_the_source(place)


def test_everything_killed_at_once(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        qemu_io(place, "write -P 6 5M 300k", "flush")
        delivery = daemon.child("delivery_main")
        for pid in (daemon.process.pid, daemon.intake, delivery):
            os.kill(pid, signal.SIGKILL)
            died(pid)
    with running(place) as again:
        replicating(place)
        again.end()
    restored_is_the_source(place)


def test_a_vault_that_is_away(place: Place) -> None:
    with running(place, "--drain", "1") as daemon:
        replicating(place)
        (place / "vault").rename(place / "away")
        qemu_io(place, "write -P 8 6M 300k", "flush")  # guests do not notice
        said = daemon.end()
        assert "not all was shipped" in said
    (place / "away").rename(place / "vault")
    with running(place) as again:
        assert "not all was shipped" not in again.end()
    restored_is_the_source(place)


def test_a_second_signal_does_not_wait(place: Place) -> None:
    with running(place, "--drain", "3600") as daemon:
        replicating(place)
        (place / "vault").rename(place / "away")
        delivery = daemon.child("delivery_main")
        os.kill(delivery, signal.SIGSTOP)  # it hangs
        daemon.process.send_signal(signal.SIGTERM)
        daemon.heard("stopping")
        daemon.process.send_signal(signal.SIGTERM)
        code, err = daemon.told()
        assert code == 0
        assert "not all was shipped" in err
        died(delivery)


def test_delivery_that_may_not_write_says_so_and_is_tried_again_by_hand(place: Place) -> None:
    (place / "state" / "writer.key").unlink()  # a stranger's, from now on
    with running(place) as daemon:
        daemon.heard("is not admitted")
        hint = daemon.heard("hint: backstay vault admit").split()
        qemu_io(place, "write -P 8 6M 300k", "flush")  # guests do not notice
        (row,) = place.json("status", "c.yaml", "--folder")["machines"]
        assert "nothing is shipped now: " in row["last_run"]
        assert row["delivery"]["state"] == "failed"
        assert row["hint"].startswith("backstay vault admit")
        place.json("vault", "admit", "file:./vault", "--key", "op.key", *hint[-2:])
        daemon.process.send_signal(signal.SIGHUP)
        daemon.heard("reload: done")
        replicating(place)
        daemon.end()
    restored_is_the_source(place)


def test_a_socket_in_use(place: Place) -> None:
    (place / "root.sock").write_text("mine")
    with running(place, ready=None) as daemon:
        code, err = daemon.told()
    assert code == 2
    assert "exists and is not a socket" in err
    assert (place / "root.sock").read_text() == "mine"
    with pytest.raises(IntakeGone):
        ask(place / "state", "status")


def test_a_disk_that_is_missing(place: Place) -> None:
    (place / "root.img").unlink()
    with running(place, ready=None) as daemon:
        code, err = daemon.told()
    assert code == 7
    assert "root.img" in err
    assert "hint: " in err
    with pytest.raises(IntakeGone):
        ask(place / "state", "status")


def test_another_configuration_is_taken_when_intake_is_taken_over(place: Place) -> None:
    with running(place) as first:
        replicating(place)
        intake = first.intake
        first.process.kill()
        died(first.process.pid)
        text = (place / "c.yaml").read_text()
        (place / "other.yaml").write_text(text.replace("root.sock", "other.sock"))
        refused = place.backstay("run", "other.yaml", "--json")
        assert refused.code == 11
        assert "intake is running with" in refused.error["message"]
        (place / "c.yaml").write_text(text.replace("root.sock", "other.sock"))
        with running(place, ready=f"(process {intake}), taken over") as second:
            assert second.heard("web1/root: nbd").endswith("other.sock\n")
            assert not (place / "root.sock").exists()
            replicating(place)
            second.end()


def test_the_configuration_read_again(place: Place) -> None:
    path = place / "c.yaml"
    text = path.read_text()
    with running(place) as daemon:
        for wrong, told in (
            (text.replace("nbd", "tape"), 'must be "scan" or "nbd", not "tape"'),
            (text.replace("root.img", "gone.img"), "gone.img: does not exist"),
            (text.replace("state: ./state", "state: ./other"), "daemon.state is another"),
        ):
            path.write_text(wrong)
            daemon.process.send_signal(signal.SIGHUP)
            assert told in daemon.heard("reload: nothing is changed")
        before = daemon.child("delivery_main")
        path.write_text(text.replace("256MiB", "128MiB"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.heard("reload: done")
        daemon.heard("web1: the journal's settings change when intake is started again")
        died(before)
        replicating(place)
        daemon.end()


def test_a_state_folder_whose_sockets_have_long_names() -> None:
    with TemporaryDirectory(prefix="bs-") as folder:
        state = "/".join(["long" * 10] * 4)
        place = prepare(Path(folder), state=f"./{state}")
        with running(place, state=state) as daemon:
            replicating(place)
            daemon.end()
        restored_is_the_source(place)


def test_commands_that_do_not_go_together(place: Place) -> None:
    once = place.backstay("run", "c.yaml", "--once")
    assert once.code == 2
    assert "captured live" in once.err
    for words in (("--machine", "web1"), ("--accept-shrink",), ("--drain", "-1")):
        assert place.backstay("run", "c.yaml", *words).code == 2
    gone = place.backstay("mark", "c.yaml", "web1")
    assert gone.code == 8
    assert "hint: start it with: backstay run CONFIG" in gone.err
    assert place.backstay("mark", "c.yaml", "web2").code == 13


def test_scanned_machines_beside_live_ones(place: Place) -> None:
    more = "  archive:\n    vault: standby\n    disks:\n      all: {path: a.img, capture: scan}\n"
    (place / "c.yaml").write_text((place / "c.yaml").read_text() + more)
    with running(place, ready="archive: is scanned at rest") as daemon:
        daemon.heard("intake: serving")
        assert place.backstay("mark", "c.yaml", "archive").code == 13
        daemon.end()


def _hook(place: Place, name: str, *lines: str) -> None:
    path = place / name
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def test_marks_of_the_applications() -> None:
    with TemporaryDirectory(prefix="bs-") as folder:
        hooks = ", snapshot: {pre: ./freeze, post: ./thaw, timeout: 20s}"
        place = prepare(Path(folder), more=hooks)
        _hook(place, "freeze", "echo freeze $BACKSTAY_MACHINE/$BACKSTAY_DISK >> said")
        _hook(place, "thaw", "echo thaw >> said", "test ! -e melted")
        with running(place) as daemon:
            replicating(place)
            (place / "said").unlink()
            made = place.json("mark", "c.yaml", "web1", "--label", "before the upgrade")
            assert made["grade"] == "app"
            assert (place / "said").read_text() == "freeze web1/root\nthaw\n"
            points = place.json("points", "web1", *KEYS)["points"]
            (point,) = [each for each in points if each["seq"] == made["seq"]]
            assert point["class"] == "app"
            (place / "melted").touch()
            lost = place.backstay("mark", "c.yaml", "web1")
            assert lost.code == 7
            assert "the mark is lost" in lost.err
            (place / "said").unlink()
            _hook(place, "freeze", "exit 3")
            assert place.backstay("mark", "c.yaml", "web1").code == 7
            assert (place / "said").read_text() == "thaw\n"  # it may have got half-way
            long = place.backstay("mark", "c.yaml", "web1", "--label", "x" * 201)
            assert long.code == 2
            daemon.end()


def test_a_mark_that_is_not_waited_for(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        delivery = daemon.child("delivery_main")
        os.kill(delivery, signal.SIGSTOP)
        said = place.backstay("mark", "c.yaml", "web1", "--wait", "0.5")
        os.kill(delivery, signal.SIGKILL)  # stopped, it would keep the parent's output open
        assert said.code == 8
        assert "not in the vault after 0.5 s" in said.err
