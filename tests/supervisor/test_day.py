"""A machine's life under a real supervisor, with its real intake and delivery."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import Place
from tests.daemon.running import ask, died, prepare, qemu_io, restored_is_the_source
from tests.supervisor.hosted import Host, Refused, bury_intake, hosted
from tests.waiting import until


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as folder:
        found = prepare(Path(folder))
        try:
            yield found
        finally:
            bury_intake(found)


@pytest.fixture
def host(place: Place) -> Iterator[Host]:
    with hosted(place) as found:
        yield found


def shipped(host: Host) -> None:
    """Everything written until now is in the vault."""
    made = host.operate("mark")
    assert host.ended(made["id"])["state"] == "succeeded"


def test_enabled_by_the_configuration(host: Host, place: Place) -> None:
    view = host.until("replicating")
    assert host.states() == [
        "checking prerequisites",
        "ready for replication",
        "initial replication",
        "finalizing protection",
        "replicating",
    ]
    assert view["disks"][0]["socket"].endswith("root.sock")
    assert view["disks"][0]["size"] == (place / "root.img").stat().st_size
    assert view["point"] > 0
    jobs = {job["kind"]: job for job in host.ask("jobs")}
    assert set(jobs) == {"enable protection", "initial replication", "finalize protection"}
    assert all(job["state"] == "succeeded" for job in jobs.values())
    assert [task["name"] for task in jobs["enable protection"]["tasks"]] == ["disks", "trust"]
    made = host.operate("mark", label="now")
    assert host.ended(made["id"])["result"]["seq"] == host.until("replicating")["point"]
    daemon = host.ask("daemon")
    assert daemon["ready"]
    assert daemon["intake_pid"] == ask(place / "state", "status")["pid"]
    with pytest.raises(Refused, match="not possible while it is: replicating") as refused:
        host.operate("resume")
    assert "suspend" in refused.value.hint
    with pytest.raises(Refused) as refused:
        host.operate("migrate")
    assert refused.value.hint == "on a host with the key: backstay failover migrate web1"
    outcomes = [one["outcome"] for one in host.ask("audit")]
    assert outcomes[-1] == f"job {made['id']}"
    assert outcomes[0].startswith("refused: migrate: web1: ")
    host.end()
    restored_is_the_source(place)


def test_suspended_and_resumed(host: Host, place: Place) -> None:
    host.until("replicating")
    shipped(host)
    host.operate("suspend")
    view = host.until("suspended")
    assert "suspended" in [reason["code"] for reason in view["reasons"]]
    qemu_io(place, "write -P 7 1M 64k", "flush")  # intake goes on
    with pytest.raises(Refused):
        host.operate("mark")
    host.kill()
    with hosted(place) as again:
        assert again.view()["state"] == "suspended"
        before = again.view()["point"]
        qemu_io(place, "write -P 8 2M 64k", "flush")
        assert again.view()["point"] == before
        again.operate("resume")
        again.until("replicating")
        shipped(again)
        assert again.view()["point"] > before
        again.end()
    restored_is_the_source(place)


def stays(host: Host, state: str) -> None:
    """For as long as it takes to look at intake a few times, whatever makes it look again."""
    looks = {host.ask("look", machine="web1")}

    def looked_again() -> bool:
        assert host.view()["state"] == state
        looks.add(host.ask("look", machine="web1"))
        return len(looks) >= 4

    until("four looks at intake", looked_again)


def intake_state(place: Place) -> str:
    return str(ask(place / "state", "status")["machines"]["web1"]["state"])


def test_a_gap_is_resynchronized(host: Host, place: Place) -> None:
    host.until("replicating")
    intake = int(ask(place / "state", "status")["pid"])
    qemu_io(place, "write -P 7 1M 64k")
    os.kill(intake, signal.SIGKILL)
    died(intake)
    shown = host.states()
    until("another state", lambda: host.states()[-2:] != shown[-2:])
    host.until("replicating")
    assert "waiting for resync" in host.states()
    host.end()
    restored_is_the_source(place)


def test_a_resync_is_cancelled_and_ordered(host: Host, place: Place) -> None:
    host.until("replicating")
    delivery = host.ask("daemon")["delivery_pid"]
    intake = int(ask(place / "state", "status")["pid"])
    host.operate("suspend")
    host.until("suspended")
    os.kill(intake, signal.SIGKILL)
    died(intake)
    host.until("resync suspended")
    os.kill(delivery, signal.SIGSTOP)  # so that it does not go on
    made = host.operate("resume")
    assert made["kind"] == "resynchronize"
    host.until("resynchronizing")
    host.ask("act", number=made["id"], action="cancel")
    assert host.ended(made["id"])["state"] == "cancelled"
    host.until("waiting for resync")
    os.kill(delivery, signal.SIGCONT)
    stays(host, "waiting for resync")
    host.kill()
    with hosted(place) as again:
        again.until("waiting for resync")
        job = again.operate("resync")
        assert again.ended(job["id"])["state"] == "succeeded"
        again.until("replicating")
        again.end()
    restored_is_the_source(place)


def test_unprotected_and_protected_again(host: Host, place: Place) -> None:
    host.until("replicating")
    stake = host.ask("stake", operation="unprotect", machine="web1", parameters={})
    assert stake["irreversible"]
    with pytest.raises(Refused, match="may only add"):
        host.operate("unprotect", data="delete")
    made = host.operate("unprotect", data="keep")
    assert host.ended(made["id"])["state"] == "succeeded"
    host.until("disabled")
    qemu_io(place, "write -P 9 3M 64k", "flush")  # its guest goes on
    until("intake that tracks", lambda: intake_state(place) == "tracking")
    host.kill()
    with hosted(place) as again:
        stays(again, "disabled")  # a person said so
        qemu_io(place, "write -P 10 4M 64k", "flush")
        job = again.operate("protect")
        done = again.ended(job["id"])
        assert done["state"] == "succeeded", done
        assert [task["name"] for task in done["tasks"]] == ["disks", "trust", "vault"]
        again.until("replicating")
        again.end()
    restored_is_the_source(place)


def test_prerequisites_that_fail(host: Host, place: Place) -> None:
    host.until("replicating")
    host.ended(host.operate("unprotect")["id"])
    host.until("disabled")
    (place / "vault").rename(place / "away")
    job = host.ended(host.operate("protect")["id"])
    assert job["state"] == "failed"
    assert job["problem"]["hint"]
    view = host.until("disabled")
    assert view["reasons"][0]["code"] == "prerequisites"
    (place / "away").rename(place / "vault")
    restarted = host.ask("act", number=job["id"], action="restart")
    assert host.ended(restarted["id"])["state"] == "succeeded"
    host.until("replicating", without="prerequisites")


def test_initial_replication_later(host: Host, place: Place) -> None:
    host.until("replicating")
    host.ended(host.operate("unprotect")["id"])
    host.until("disabled")
    now = time.time_ns() // 1000
    with pytest.raises(Refused, match="7 days"):
        host.operate("protect", at_us=now + 8 * 86_400_000_000)
    host.operate("protect", at_us=now + 86_400_000_000)
    host.until("ready for replication")
    host.kill()
    with hosted(place) as again:
        assert again.view()["state"] == "ready for replication"
        assert again.operate("start-replication", at_us=time.time_ns() // 1000 + 1_500_000) is None
        assert again.view()["state"] == "ready for replication"
        again.until("replicating")
        again.end()
    restored_is_the_source(place)


def test_critical_and_back(place: Place) -> None:
    (place / "state" / "writer.key").unlink()  # a stranger's, from now on
    with hosted(place) as host:
        view = host.until("critical")
        assert view["health"] == "critical"
        assert view["reasons"][0]["code"] == "critical"
        assert "not admitted" in view["reasons"][0]["message"]
        assert view["ladder"]["next_try_us"] is None
        (job,) = [job for job in host.ask("jobs") if job["kind"] == "initial replication"]
        assert host.ended(job["id"])["problem"]["error"] == "NotAdmitted"
        qemu_io(place, "write -P 8 6M 300k", "flush")  # guests do not notice
        host.operate("retry")
        host.kill()
        with hosted(place) as again:
            hint = again.until("critical")["reasons"][0]["hint"].split()
            place.json("vault", "admit", "file:./vault", "--key", "op.key", *hint[-2:])
            again.ask("reload")
            again.until("replicating")
            again.end()
    restored_is_the_source(place)


def test_a_vault_that_is_away_and_retry_by_hand(host: Host, place: Place) -> None:
    host.until("replicating")
    shipped(host)
    (place / "vault").rename(place / "away")
    qemu_io(place, "write -P 8 6M 300k", "flush")
    until("the ladder's first step", lambda: host.view()["ladder"]["attempt"] == 1)
    view = host.view()
    assert view["ladder"]["last"]["recoverable"]
    assert 0 < view["ladder"]["next_try_us"] / 1e6 - time.time() <= 66
    host.kill()
    with hosted(place) as again:
        until("the same step again", lambda: again.view()["ladder"]["attempt"] == 1)
        assert again.view()["ladder"]["next_try_us"] == view["ladder"]["next_try_us"]
        (place / "away").rename(place / "vault")
        again.operate("retry")
        shipped(again)
        assert again.view()["ladder"]["attempt"] == 0
        again.end()
    restored_is_the_source(place)
