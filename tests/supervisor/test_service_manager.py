"""What systemd is told, and the unit that it is told by."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing

from pipeline.supervisor.notify import Notifier
from stages.system import SystemClock
from tests import waiting
from tests.cli.support import Place
from tests.daemon.running import died, prepare
from tests.supervisor.hosted import Host, bury_intake, hosted

UNIT = Path(__file__).parents[2] / "configs" / "backstay.service"
PATIENCE = 60.0


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as folder:
        found = prepare(Path(folder))
        try:
            yield found
        finally:
            bury_intake(found)


def listening(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
    sock.settimeout(PATIENCE)
    return sock


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_words_and_their_form(tmp_path: Path, kind: str) -> None:
    address = f"{tmp_path}/n" if kind == "path" else f"@backstay-test-{os.getpid()}"
    with listening(address) as sock:
        found = Notifier.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}, 7)
        assert found == Notifier(address, 3.0)
        found.ready("two\nlines")
        assert sock.recv(4096) == b"READY=1\nSTATUS=two lines"
        found.ready()
        assert sock.recv(4096) == b"READY=1"
        before = time.monotonic()
        found.reloading(SystemClock())
        first, second = sock.recv(4096).decode().split("\n")
        assert first == "RELOADING=1"
        usec = int(second.removeprefix("MONOTONIC_USEC="))
        assert int(before * 1e6) <= usec <= time.monotonic() * 1e6
        found.stopping()
        assert sock.recv(4096) == b"STOPPING=1"
        found.extend(1.5)
        assert sock.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Notifier()),
        ({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1"}, Notifier()),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, Notifier()),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "x"}, Notifier("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "9" * 30}, Notifier("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "8", "WATCHDOG_PID": "6"}, Notifier("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "8", "WATCHDOG_PID": "7"}, Notifier("/n", 8e-6)),
    ],
)
def test_the_environment(environment: dict[str, str], expected: Notifier) -> None:
    assert Notifier.of(environment, 7) == expected


def test_nobody_there(tmp_path: Path) -> None:
    Notifier().ready()
    Notifier(f"{tmp_path}/nobody").ready()
    Notifier(f"{tmp_path}/{'x' * 200}").ready()  # longer than an address can be


async def test_the_watchdog_is_fed_while_all_is_well(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    class Clock:
        def monotonic(self) -> float:
            return trio.current_time()

        def wall_us(self) -> int:
            return 0

        async def sleep(self, seconds: float) -> None:
            await trio.sleep(seconds)

    with listening(f"{tmp_path}/n") as sock:
        sock.setblocking(False)
        found = Notifier(f"{tmp_path}/n", 10.0)
        with trio.move_on_after(100):
            await found.feed(Clock(), lambda: trio.current_time() < 52)
        fed = 0
        while select.select([sock], [], [], 0)[0]:
            assert sock.recv(100) == b"WATCHDOG=1"
            fed += 1
        assert fed == 11
        await Notifier(f"{tmp_path}/n").feed(Clock(), lambda: True)  # none is wanted


def test_a_supervisor_tells_its_life(place: Place) -> None:
    address = str(place / "notify")
    with listening(address) as sock:

        def until(word: str) -> str:
            def hear() -> str | None:
                said = sock.recv(4096).decode()
                return said if word in said else None

            return waiting.until(word, hear, pause=0)

        with hosted(place, NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as host:
            assert until("READY=1") == "READY=1\nSTATUS=1 machines"
            host.until("replicating")
            until("WATCHDOG=1")
            host.process.send_signal(signal.SIGHUP)
            until("RELOADING=1")
            until("READY=1")
            host.process.send_signal(signal.SIGSTOP)  # it hangs
            host.process.send_signal(signal.SIGCONT)
            until("WATCHDOG=1")
            for which in ("intake_pid", "delivery_pid"):  # they do not speak in its name
                assert b"NOTIFY_SOCKET" not in environment_of(host, which)
            host.process.send_signal(signal.SIGTERM)
            until("STOPPING=1")
            until("EXTEND_TIMEOUT_USEC=")
            assert host.process.wait(PATIENCE) == 0


def environment_of(host: Host, which: str) -> bytes:
    """Of a process below it; delivery may just be begun anew by the reload."""

    def look() -> bytes:
        try:
            return Path(f"/proc/{host.ask('daemon')[which]}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return b""

    return waiting.until(f"a process that is the {which}", look)


def test_killed_by_its_watchdog_intake_stays(place: Place) -> None:
    """As KillMode=process does it: SIGABRT to the main process and nobody else."""
    with hosted(place) as host:
        host.until("replicating")
        intake, delivery = (host.ask("daemon")[f"{one}_pid"] for one in ("intake", "delivery"))
        host.process.send_signal(signal.SIGABRT)
        host.process.wait(PATIENCE)
        died(delivery)
    with hosted(place) as again:
        assert again.ask("daemon")["intake_pid"] == intake
        again.until("replicating")
        again.end()


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_what_the_unit_must_say() -> None:
    found = settings()
    assert found["Type"] == ["notify"]
    assert found["KillMode"] == ["process"]
    assert found["OOMPolicy"] == ["continue"]
    assert found["RuntimeDirectoryPreserve"] == ["yes"]
    assert "PrivateTmp" not in found
    assert found["LimitCORE"] == ["0"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "backstay"
    program.symlink_to(sys.executable)
    unit = tmp_path / "backstay.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/backstay", str(program)))
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        check=False,
        capture_output=True,
        text=True,
    )
    complaints = [line for line in said.stderr.splitlines() if "backstay" in line]
    assert not complaints, complaints
    assert said.returncode == 0, said.stderr
