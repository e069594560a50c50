"""Disks and machines that come, grow and go while guests write to others."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cli.support import KEYS, MIB, Place
from tests.daemon.running import PATIENCE, SIZE, Daemon, died, replicating, running
from tests.waiting import heard

DATA = 9 * MIB


def image(place: Place, name: str, size: int = DATA) -> None:
    """A disk with something in it."""
    with (place / name).open("wb") as file:
        file.truncate(size)
        file.seek(MIB)
        file.write(os.urandom(100_000))


def configure(place: Place, *disks: tuple[str, str, str], more: str = "") -> None:
    """These disks (name, path, socket) besides root's."""
    text = (place / "c.yaml").read_text()
    head, _, _ = text.partition("      root:")
    rows = [("root", "root.img", "root.sock"), *disks]
    lines = [
        f'      {name}: {{path: ./{path}, capture: nbd, listen: "unix:./{sock}"}}\n'
        for name, path, sock in rows
    ]
    (place / "c.yaml").write_text(head + "".join(lines) + more)


def reload(daemon: Daemon, word: str = "reload: done") -> str:
    """Have it read the configuration again, and wait for what it says of that."""
    daemon.process.send_signal(signal.SIGHUP)
    return daemon.heard(word)


def guest(place: Place, disk: str, sock: str, *commands: str) -> str:
    words = [word for each in commands for word in ("-c", each)]
    said = place.call("qemu-io", "-f", "raw", *words, f"nbd+unix:///{disk}?socket={sock}")
    assert "failed" not in said
    return said


@contextmanager
def busy(place: Place) -> Iterator[None]:
    """A guest that writes to root all the time, reads back what it wrote, and may not fail."""
    job = [
        "fio", "--name=x", "--ioengine=nbd", "--uri=nbd+unix:///root?socket=root.sock",
        "--rw=randwrite", "--bsrange=4k-64k", "--iodepth=4", "--size=8M", "--verify=crc32c",
        "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--fsync=50",
        "--rate=4M",
    ]  # fmt: skip
    script = f"while [ ! -e stop ]; do {shlex.join(job)} || exit 1; done"
    writer = subprocess.Popen(
        ["sh", "-c", script],
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield
        assert writer.poll() is None, writer.communicate()[0]
        (place / "stop").touch()  # it ends after a pass, never inside one
        said, _ = writer.communicate(timeout=PATIENCE)
        assert writer.returncode == 0, said
    finally:
        writer.kill()
        writer.wait()


def mark(place: Place) -> int:
    """The number of a point of now."""
    replicating(place)
    return int(place.json("mark", "c.yaml", "web1")["seq"])


def restored(place: Place, seq: int, folder: str) -> dict[str, bytes]:
    place.json("restore", "web1", *KEYS, "--at", f"#{seq}", "--to", folder)
    return {path.name: path.read_bytes() for path in (place / folder).iterdir()}


def test_a_disk_comes_grows_and_goes_while_another_is_written(place: Place) -> None:
    image(place, "data.img")
    with running(place) as daemon:
        replicating(place)
        with busy(place):
            configure(place, ("data", "data.img", "data.sock"))
            assert reload(daemon, "web1/data: nbd").endswith("data.sock\n")
            daemon.heard("reload: done")
            guest(place, "data", "data.sock", "write -P 7 2M 64k", "write -P 8 5000 300", "flush")
            added, held = mark(place), (place / "data.img").read_bytes()
            os.truncate(place / "data.img", DATA + 5 * MIB + 512)
            reload(daemon, f"web1/data: has grown from {DATA} to {DATA + 5 * MIB + 512} bytes")
            daemon.heard("reload: done")
            guest(place, "data", "data.sock", f"write -P 9 {DATA + MIB} 64k", "flush")
            grown, larger = mark(place), (place / "data.img").read_bytes()
            configure(place)
            reload(daemon, "web1/data: not protected any more")
            daemon.heard("reload: done")
            assert not (place / "data.sock").exists()
            gone = mark(place)
        daemon.end()
    first, second, third = (restored(place, n, f"b{n}") for n in (added, grown, gone))
    assert first["web1-data.img"] == held
    assert second["web1-data.img"] == larger
    assert set(first) == set(second) == {"web1-root.img", "web1-data.img"}
    assert set(third) == {"web1-root.img"}
    newest = place.json("restore", "web1", *KEYS, "--to", "back")
    assert newest
    assert (place / "back/web1-root.img").read_bytes() == (place / "root.img").read_bytes()


def test_every_consistent_point_has_whole_disks(place: Place) -> None:
    """No point that is called consistent holds a disk that was not read yet."""
    image(place, "data.img")
    before = (place / "data.img").read_bytes()
    with running(place) as daemon:
        replicating(place)
        configure(place, ("data", "data.img", "root.sock"))  # at the same address
        reload(daemon)
        guest(place, "data", "root.sock", "read 0 4k")
        mark(place)
        daemon.end()
    _all_consistent_hold(place, {before})


def test_a_disk_added_between_two_runs(place: Place) -> None:
    image(place, "data.img")
    before = (place / "data.img").read_bytes()
    with running(place) as daemon:
        replicating(place)
        daemon.end()
    configure(place, ("data", "data.img", "data.sock"))
    with running(place) as daemon:
        mark(place)
        daemon.end()
    _all_consistent_hold(place, {before})


def _all_consistent_hold(place: Place, contents: set[bytes]) -> None:
    points: list[dict[str, Any]] = place.json("points", "web1", *KEYS)["points"]
    seen = 0
    for point in points:
        if not point["consistent"]:
            continue
        data = restored(place, point["seq"], f"p{point['seq']}").get("web1-data.img")
        assert data is None or data in contents, point
        seen += data is not None
    assert seen


def test_what_cannot_be_had_changes_nothing(place: Place) -> None:
    image(place, "data.img")
    with running(place) as daemon:
        replicating(place)
        configure(place, ("data", "data.img", "data.sock"))
        reload(daemon)
        mark(place)
        (place / "taken.sock").write_text("mine")
        os.link(place / "root.img", place / "same.img")
        before = place.json("status", "c.yaml", "--folder")["machines"][0]["live"]["disks"]
        for disks, more, told in (
            ([("data", "gone.img", "data.sock")], "", "gone.img: does not exist"),
            ([("data", "data.img", "taken.sock")], "", "exists and is not a socket"),
            ([("other", "data.img", "o.sock")], "", "is served as data still"),
            ([("data", "data.img", "data.sock"), ("x", "same.img", "x.sock")], "", "is served as"),
            ([("data", "data.img", "d2.sock")], _machine("m2", "gone.img"), "does not exist"),
            (
                [("data", "data.img", "d2.sock")],
                _machine("m2", "data2.img", "taken.sock"),
                "socket",
            ),
        ):
            image(place, "data2.img")
            configure(place, *disks, more=more)
            assert told in reload(daemon, "reload: nothing is changed")
            live = place.json("status", "c.yaml", "--folder")["machines"][0]["live"]
            assert live["disks"] == before
            assert live["state"] == "replicating"
            guest(place, "data", "data.sock", "write -P 3 0 4k")
        os.truncate(place / "data.img", DATA - MIB)
        configure(place, ("data", "data.img", "data.sock"))
        reload(daemon, f"has {DATA - MIB} bytes, {DATA} are protected")
        daemon.heard("hint: if it was made smaller on purpose, give it a new name")
        os.truncate(place / "data.img", DATA)
        daemon.end()


def _machine(name: str, path: str, sock: str = "m2.sock") -> str:
    return (
        f"  {name}:\n    vault: standby\n    disks:\n"
        f'      all: {{path: ./{path}, capture: nbd, listen: "unix:./{sock}"}}\n'
    )


def test_a_machine_comes_and_goes(place: Place) -> None:
    image(place, "data.img")
    with running(place) as daemon:
        replicating(place)
        with busy(place):
            configure(place, more=_machine("m2", "data.img"))
            reload(daemon, "m2/all: nbd")
            daemon.heard("reload: done")
            guest(place, "all", "m2.sock", "write -P 5 3M 64k", "flush")
            for _ in range(100):
                if place.backstay("mark", "c.yaml", "m2", "--wait", "30").code == 0:
                    break
            configure(place)
            reload(daemon, "m2: not captured any more")
            daemon.heard("reload: done")
        daemon.end()
    place.json("restore", "m2", *KEYS, "--to", "back")
    assert (place / "back/m2-all.img").read_bytes() == (place / "data.img").read_bytes()


def test_a_client_of_a_disk_that_goes_is_let_go_and_others_stay(place: Place) -> None:
    image(place, "data.img")
    configure(place, ("data", "data.img", "root.sock"))
    with running(place) as daemon:
        replicating(place)
        clients = {
            name: subprocess.Popen(
                ["qemu-io", "-f", "raw", f"nbd+unix:///{name}?socket=root.sock"],
                cwd=place.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, bufsize=0,
            )
            for name in ("root", "data")
        }  # fmt: skip
        try:
            for client in clients.values():
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write("write -P 1 0 4k\n")
                heard(client.stdout, "ops")
            configure(place)
            reload(daemon)
            said = {
                name: client.communicate("write -P 2 4k 4k\nread -P 2 4k 4k\nquit\n", PATIENCE)[0]
                for name, client in clients.items()
            }
        finally:
            for client in clients.values():
                client.kill()
        assert "failed" not in said["root"], said
        assert "failed" in said["data"], said
        daemon.end()


def test_the_path_of_a_disk_changes_and_intake_is_killed_at_once(place: Place) -> None:
    """What another file holds is compared whole, whatever was hot of the one before."""
    image(place, "other.img", SIZE)
    with running(place) as daemon:
        replicating(place)
        guest(place, "root", "root.sock", "write -P 1 0 4k", "flush")
        text = (place / "c.yaml").read_text()
        (place / "c.yaml").write_text(text.replace("root.img", "other.img"))
        pid = daemon.intake
        os.kill(pid, signal.SIGKILL)
        died(pid)
        daemon.heard("root: is another file or device than before")
        mark(place)
        (place / "c.yaml").write_text(text)
        reload(daemon)
        seq = mark(place)
        daemon.end()
    assert restored(place, seq, "back")["web1-root.img"] == (place / "root.img").read_bytes()


def test_a_disk_that_is_vouched_for(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        said = place.backstay("run", "c.yaml", "--unchanged", "web1/root")
        assert said.code == 14  # it is running
        daemon.end()
    os.utime(place / "root.img")
    with running(place) as daemon:
        reason = daemon.place.json("status", "c.yaml", "--folder")["machines"][0]["live"][
            "compared"
        ]
        assert reason == ["root: may have been written to while it was detached"]
        replicating(place)
        daemon.end()
    os.utime(place / "root.img")
    with running(place, "--unchanged", "web1/root", ready="WARNING") as daemon:
        daemon.heard("root: not compared: the operator vouches")
        (row,) = place.json("status", "c.yaml", "--folder")["machines"]
        assert row["live"]["state"] == "replicating"
        mark(place)
        pid = daemon.intake
        os.kill(pid, signal.SIGKILL)
        died(pid)
        daemon.heard("root: stopped unclean")  # the word was for one start
        daemon.process.kill()
        died(daemon.process.pid)
        os.kill(daemon.intake, signal.SIGKILL)
    said = place.backstay("run", "c.yaml", "--unchanged", "web1/root")
    assert said.code == 11, said
    assert "the last stop was not clean" in said.err
    for word, code in (("web1", 2), ("web1/data", 13), ("web2/root", 13)):
        assert place.backstay("run", "c.yaml", "--unchanged", word).code == code
