"""The demonstration, whole; what it notices; what it leaves behind when it is ended."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.demo.client import NbdClient
from pipeline.demo.commands import Commands
from pipeline.demo.guest import Guest, Moment
from stages.errors import NotFound
from tests.cli.support import MIB, Place
from tests.waiting import until

PATIENCE = 120.0  # seconds: never reached unless something is wrong


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.demo.story._CONTENT", 2 * MIB)
    monkeypatch.setattr("pipeline.demo.story._IMAGE", 96 * MIB)


def nothing_runs(folder: Path) -> None:
    assert Commands(folder).processes() == []


@pytest.mark.usefixtures("small")  # the command itself, as large as it is, is run beside the tests
def test_it_comes_back_twice(short: Path) -> None:
    place = Place(short)
    found = place.json("demo", "--dir", "kept")
    assert found["identical"]
    assert len(found["points"]) == 2
    assert found["points"] == sorted(found["points"])
    figures = found["figures"]
    assert figures["killed"] == 3
    assert figures["writes"] > figures["writes_during_replication"] > 0
    assert figures["points"] >= 2
    results = [step["result"] for step in found["steps"]]
    assert all(said.startswith("identical, file system clean") for said in results[-3:-1])
    assert results[-1].endswith("identical")
    bare = place / "kept" / "bare"
    assert {path.name for path in bare.iterdir()} >= {"vault", "operator.key"}
    assert not (place / "kept" / "disk.img").exists()
    nothing_runs(place / "kept")
    again = place.backstay("demo", "--dir", "kept", "--json")
    assert (again.code, again.error["message"]) == (2, "exists already")


@pytest.mark.usefixtures("small")
def test_a_flipped_bit_in_what_the_guest_remembers(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember = Guest.mark

    def wrong(guest: Guest, name: str) -> Moment:
        moment = remember(guest, name)
        with moment.image.open("r+b") as image:
            image.seek(MIB + 5)
            (byte,) = image.read(1)
            image.seek(MIB + 5)
            image.write(bytes([byte ^ 1]))
        return moment

    monkeypatch.setattr(Guest, "mark", wrong)
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr("tempfile.tempdir", None)
    said = Place(short).backstay("demo", "--json")
    assert (said.code, said.error["error"]) == (6, "DamagedObject")
    assert f"at byte {MIB + 5}" in said.error["message"]
    (kept,) = short.glob("backstay-demo-*")
    assert said.error["hint"] == f"everything is kept in {kept}"
    assert (kept / "reference-first.img").exists()
    nothing_runs(kept)


@pytest.mark.usefixtures("small")
def test_a_flushed_block_that_is_lost(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = Guest.check

    def wrong(guest: Guest, disk: NbdClient) -> object:
        with guest.known.open("r+b") as known:
            known.write(b"lost")
        return check(guest, disk)

    monkeypatch.setattr(Guest, "check", wrong)
    said = Place(short).backstay("demo", "--json", "--dir", "kept")
    assert (said.code, said.error["error"]) == (7, "SourceIO")
    assert said.error["message"] == "block 0 is not what the guest flushed to it"
    nothing_runs(short / "kept")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_it_leaves_no_process(short: Path, how: signal.Signals) -> None:
    process = Place(short).start("demo", "--dir", "kept")
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "processes, " in line:  # the daemon runs, the guest writes
                break
        found = Commands(short / "kept").processes()
        assert len(found) == 3
        with descriptors([each.pid for each in found]) as ends:
            process.send_signal(how)
            process.communicate(timeout=PATIENCE)
            for end in ends:
                ended(end)
        assert process.returncode == (-how if how == signal.SIGKILL else 130)
        nothing_runs(short / "kept")
    finally:
        process.kill()
        process.communicate()


@contextmanager
def descriptors(pids: list[int]) -> Iterator[list[int]]:
    found = [os.pidfd_open(pid) for pid in pids]
    yield found
    for each in found:
        os.close(each)


def ended(descriptor: int) -> None:
    assert select.select([descriptor], [], [], PATIENCE)[0], "a process goes on"


def test_without_the_file_systems_tools(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr("tempfile.tempdir", str(short))
    said = Place(short).backstay("demo", "--json")
    assert (said.code, said.out) == (15, "")
    assert said.error["error"] == "MissingTool"
    assert "apt install e2fsprogs" in said.error["hint"]
    assert list(short.iterdir()) == []


def test_a_folder_with_too_long_a_path(short: Path) -> None:
    name = "x" * 100
    said = Place(short).backstay("demo", "--dir", name, "--json")
    assert (said.code, said.error["error"]) == (2, "UsageError")
    assert "too long" in said.error["message"]
    assert list(short.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_a_step_that_fails_ends_with_its_own_error(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here with a configuration without machines."""
    monkeypatch.setattr("pipeline.demo.story._CONFIG", "daemon: {state: ./state}\n")
    said = Place(short).backstay("demo", "--json", "--dir", "kept")
    assert said.code == 1
    assert "is missing" in said.error["message"] or "machines" in said.error["message"]
    assert said.error["subject"].startswith("backstay run")


@pytest.mark.parametrize("server", ["nbdkit", "qemu-nbd"])
def test_the_client_and_servers_of_others(short: Path, server: str) -> None:
    image, sock = short / "disk.img", short / "s"
    image.write_bytes(b"\1" * MIB)
    command = {
        "nbdkit": ["nbdkit", "-f", "-U", str(sock), "file", str(image)],
        "qemu-nbd": ["qemu-nbd", "-t", "-f", "raw", "-x", "root", "-k", str(sock), str(image)],
    }[server]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        disk = connected(str(sock), process)
        with disk:
            assert (disk.size, disk.read_only) == (MIB, False)
            for at in range(0, 65536, 4096):
                disk.begin_write(at, bytes([at >> 12]) * 4096)
            done = {disk.finish_write()[0] for _ in range(16)}
            assert done == set(range(0, 65536, 4096))
            disk.flush()
            assert disk.read(4096, 8192) == b"\1" * 4096 + b"\2" * 4096
            with pytest.raises(ValueError, match="of a disk of"):
                disk.read(MIB, 1)
        assert image.read_bytes()[:65536] == b"".join(bytes([n]) * 4096 for n in range(16))
        if server == "qemu-nbd":
            with pytest.raises(NotFound):
                NbdClient(str(sock), "other")
        disk = connected(str(sock), process)
        process.kill()
        process.wait()
        with pytest.raises(ConnectionError):
            disk.flush()
        disk.abandon()
    finally:
        process.kill()
        process.wait()


def connected(path: str, process: subprocess.Popen[bytes]) -> NbdClient:
    """Connect as soon as it listens."""

    def connect() -> NbdClient | None:
        assert process.poll() is None
        try:
            return NbdClient(path, "root")
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    return until(f"a server at {path}", connect, pause=0)
