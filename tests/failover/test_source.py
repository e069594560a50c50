"""The old source's daemon, in processes of its own: its listener, its delivery, its guest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pipeline import notice as module
from pipeline.notice import listener_notice, notice_fields, notice_from
from stages.ports import Machine
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore
from stages.system import this_machine
from stages.vault.failover_log import FailoverNotice
from stages.vault.failover_state import Phase
from tests.cli.support import KEYS, Place
from tests.daemon.running import prepare, qemu_io, replicating, running
from tests.failover.records import BRANCH, POINT

WEB = ("web1", *KEYS)


@pytest.fixture
def place() -> Iterator[Place]:
    with TemporaryDirectory(prefix="bs-") as folder:  # short: sockets have short paths
        yield prepare(Path(folder))


@pytest.mark.long
def test_a_source_that_comes_back_keeps_its_listener_closed(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        daemon.end()
    done = place.json("failover", "unplanned", *WEB, "--confirm", "web1")
    with running(place, ready=None) as daemon:
        assert "this machine was failed over by" in daemon.heard("its listeners stay closed")
        assert "backstay failover cancel" in daemon.heard("if production is to stay here")
        daemon.heard("web1: failed over, commit pending")
        (one,) = place.json("status", "c.yaml")["machines"]
        assert [one["state"], one["health"]] == ["failed over, commit pending", "critical"]
        (away,) = [each for each in one["reasons"] if each["code"] == "away"]
        assert "its disks stay closed here (failed over by " in away["message"]
        assert "failover cancel web1" in away["hint"]
        said = place.backstay("mark", "c.yaml", "web1")
        assert (said.code, "its disks are not served here" in said.err) == (11, True)
        assert not (place / "root.sock").exists()
        daemon.end()
    # What it was told once it remembers: a vault that is away does not make two of one.
    (place / "vault").rename(place / "elsewhere")
    with running(place, ready="its listeners stay closed") as daemon:
        daemon.heard("intake: serving")
        assert not (place / "root.sock").exists()
        daemon.end()
    (place / "elsewhere").rename(place / "vault")
    place.json("failover", "cancel", *WEB, "--confirm", "web1")
    with running(place) as daemon:
        qemu_io(place, "write -P 9 0 64k", "flush")
        replicating(place)
        daemon.end()
    assert place.json("points", *WEB)["newest"] > done["point"]["seq"]


def test_a_source_that_runs_on_serves_its_guest_and_ships_nothing(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        done = place.json("failover", "unplanned", *WEB, "--confirm", "web1")
        qemu_io(place, "write -P 9 0 64k", "flush")
        assert "failed over by" in daemon.heard("this machine was failed over")
        qemu_io(place, "write -P 8 0 64k", "flush", "read -P 8 0 64k")
        found = place.json("points", *WEB, "--all")
        # One commit may have been on its way when the fence was put; there is no other.
        assert found["newest"] <= done["point"]["seq"] + 2


async def look(ports: Machine, place: Place, groups: dict[bytes, bytes]) -> module.Looked:
    return await listener_notice(
        ports, f"file:{place / 'vault'}", str(place / "op.pub"), groups, seconds=5
    )


async def test_production_does_not_depend_on_the_vault(place: Place) -> None:
    ports = this_machine()
    assert await look(ports, place, {}) == module.Looked()
    (place / "vault").rename(place / "elsewhere")
    looked = await look(ports, place, {bytes(16): bytes(16)})
    assert looked.notice is None
    assert looked.trouble
    (place / "elsewhere").rename(place / "vault")
    (place / "op.pub").unlink()
    assert "trust" in (await look(ports, place, {})).trouble


async def test_a_vault_that_hangs_is_not_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    class Hanging(MemoryStore):
        async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
            await trio.sleep_forever()

    def hanging(_url: str, _ports: Machine) -> ObjectStore:
        return Hanging()

    monkeypatch.setattr(module, "open_store", hanging)
    looked = await look(this_machine(), place, {})
    assert looked.notice is None
    assert "did not answer in 5 s" in looked.trouble


@given(st.sampled_from(sorted(Phase)), st.booleans(), st.text(max_size=20))
def test_what_is_remembered_comes_back(phase: Phase, planned: bool, by: str) -> None:
    for point, branch in ((None, None), (POINT, BRANCH)):
        notice = FailoverNotice(bytes(16), phase, "replica7", by, 5, point, branch, planned)
        kept = json.loads(json.dumps(notice_fields(notice)))
        assert notice_from(kept) == notice
        for name in kept:
            assert notice_from({key: kept[key] for key in kept if key != name}) is None
