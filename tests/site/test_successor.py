"""Two daemons with one state through one site, and certificates in their time."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipeline.daemon.link_client import IntakeGone
from tests.cli.support import Place, same
from tests.daemon.running import Daemon, died, running
from tests.site.serving import Served, make_certificates, served, until
from tests.site.story import point, source
from tests.whole.test_operators_day import guest, view
from tests.whole.test_operators_day import until as until_state

OLD = "nbd+unix:///root?socket=root.sock"
NEW = "nbd+unix:///root?socket=new.sock"


@pytest.fixture
def here(site_process: Served) -> Iterator[tuple[Place, Served]]:
    with (
        TemporaryDirectory(prefix="bs-") as one,  # short: sockets have short paths
        TemporaryDirectory(prefix="bs-") as other,
    ):
        shutil.copytree(site_process.place / "certs", Path(other) / "certs")
        with served(Path(other)) as site:
            yield source(Path(one), site), site


@contextmanager
def _held_still(*pids: int) -> Iterator[None]:
    """As a virtual machine is when it is copied."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _copy(place: Place, daemon: Daemon) -> None:
    """Everything that the daemon has, at one moment: a snapshot of its machine, started again."""
    with _held_still(daemon.intake, daemon.child("delivery_main"), daemon.process.pid):
        shutil.copytree(place / "state", place / "new-state", ignore=_sockets)
        shutil.copy(place / "root.img", place / "new.img")
    text = (place / "c.yaml").read_text()
    for old, new in (
        ("./state", "./new-state"),
        ("root.img", "new.img"),
        ("root.sock", "new.sock"),
    ):
        assert old in text
        text = text.replace(old, new)
    (place / "new.yaml").write_text(text)


def _sockets(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


@contextmanager
def _successor(place: Place) -> Iterator[Daemon]:
    process = place.start("run", "new.yaml")
    daemon = Daemon(place, process, place / "new-state")
    try:
        daemon.heard("intake: serving")
        yield daemon
    finally:
        process.kill()
        process.communicate()
        try:
            pid = daemon.intake
        except IntakeGone:
            pass
        else:
            os.kill(pid, signal.SIGKILL)
            died(pid)


def test_the_successor_takes_over_and_the_old_writer_is_fenced(here: tuple[Place, Served]) -> None:
    place, site = here
    with running(place) as old:
        guest(place, OLD, "write -P 1 0 64k", "flush")
        until_state(place, "replicating")
        point(place)
        _copy(place, old)
        with _successor(place):
            until_state(place, "replicating", api="new-state")
            guest(place, NEW, "write -P 2 64k 64k", "flush")
            taken = point(place, "new.yaml")
            guest(place, OLD, "write -P 3 128k 64k", "flush")  # whoever still uses the old one
            found = until_state(place, "critical")
            problem = found["ladder"]["last"]
            assert (problem["error"], problem["recoverable"]) == ("Fenced", False)
            assert found["health"] == "critical"
            assert "critical" in [reason["code"] for reason in found["reasons"]]
            # Its guest goes on, and nothing of it gets into the successor's history.
            guest(place, OLD, "read -P 3 128k 64k", "write -P 4 128k 64k", "flush")
            guest(place, NEW, "write -P 5 192k 64k", "flush")
            last = point(place, "new.yaml")
            assert last > taken
            assert view(place, api="new-state")["health"] != "critical"
            assert view(place)["state"] == "critical"
            where = ("web1", "--vault", f"file:{site.vault}", "--key", "op.key")
            place.json("restore", *where, "--at", f"#{last}", "--to", "back")
            assert same(place / "back/web1-root.img", place / "new.img")
            guest(place, OLD, "read -P 0 64k 64k", "read -P 0 192k 64k")
            assert place.json("verify", *where)["whole"]


async def test_renewed_and_expired_certificates(tmp_path: Path) -> None:
    """A site and a client that go on through a renewal; what is over is refused until it is
    renewed."""
    make_certificates(tmp_path / "certs", "--days", "1")
    certs = tmp_path / "certs"
    before = {path.name: path.read_bytes() for path in certs.iterdir()}
    make_certificates(certs)  # what is there is left alone
    assert {path.name: path.read_bytes() for path in certs.iterdir()} == before
    with served(tmp_path) as site:
        assert site.process is not None
        store = site.store()
        assert await store.info("a") is None
        make_certificates(certs, "--renew")
        after = {path.name: path.read_bytes() for path in certs.iterdir()}
        assert {name for name in before if before[name] == after[name]} == {"ca.crt", "ca.key"}
        site.process.send_signal(signal.SIGHUP)
        await until(lambda: "are read again" in site.log)
        assert await store.info("a") is None  # the client's files were renewed beneath it
        old = tmp_path / "old"
        old.mkdir()
        for name in ("web1.crt", "web1.key"):
            (old / name).write_bytes(before[name])
        kept = site.store(cert=str(old / "web1.crt"), key=str(old / "web1.key"))
        assert await kept.info("a") is None  # renewed is not revoked: the CA is the same
        for each in (store, kept):
            await each.aclose()
