"""What the API may ask: events that are followed, and machines that are scanned at rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing

from pipeline.config.model import Config
from pipeline.control.views import EventView
from pipeline.records.records import FollowerTooSlow
from pipeline.state import StateFolder
from pipeline.supervisor.service import Service
from pipeline.supervisor.supervisor import Supervisor
from stages.errors import NotFound
from stages.system import this_machine
from tests.cli.support import KEYS, Place
from tests.daemon.running import prepare
from tests.supervisor.hosted import Refused, bury_intake, hosted

ARCHIVE = """\
  archive:
    vault: standby
    disks:
      all: {path: ./archive.img, capture: scan}
"""


@pytest.fixture
async def supervisor(tmp_path: Path, nursery: trio.Nursery) -> Supervisor:
    """One that does not run, but for its memory."""
    ports = this_machine()
    config = Config.model_validate(
        {
            "daemon": {"state": str(tmp_path)},
            "vaults": {"v": {"url": "file:/v", "trust": "/t"}},
            "machines": {
                "m": {"vault": "v", "disks": {"d": {"path": "/d", "capture": "scan"}}},
            },
        }
    )
    state = StateFolder.open(ports, str(tmp_path), lock=False)
    found = Supervisor(ports, config, state, lambda _: None, 1.0)
    await nursery.start(found._records.run)
    return found


async def test_events_are_followed(supervisor: Supervisor) -> None:
    """Those that were, and those to come, each once."""
    found: list[EventView] = []
    for number in range(3):
        await supervisor.parts.event("state", "m", f"before {number}")
    done = trio.Event()

    async def follow() -> None:
        async with aclosing(Service(supervisor).follow(after=1)) as events:
            async for event in events:
                found.append(event)
                if event.message == "last":
                    done.set()
                    return

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(5):
                await supervisor.parts.event("state", "m", f"after {number}")
                await trio.lowlevel.checkpoint()
            await supervisor.parts.event("state", "m", "last")
            await done.wait()
    assert [event.id for event in found] == list(range(2, 10))


async def test_a_follower_that_is_too_slow_is_cut_off(supervisor: Supervisor) -> None:
    database = supervisor._records._database
    database._limits = replace(database._limits, follower_lag=5)
    events = Service(supervisor).follow()
    await supervisor.parts.event("state", "m", "first")
    rest = []
    with trio.fail_after(10), pytest.raises(FollowerTooSlow):
        assert (await anext(events)).message == "first"
        for _ in range(20):
            await supervisor.parts.event("state", "m", "more")
        async for event in events:
            rest.append(event)  # noqa: PERF401 - it ends with an error
    assert len(rest) < 21
    await events.aclose()


async def test_what_is_not_there(supervisor: Supervisor) -> None:
    asked = Service(supervisor)
    with pytest.raises(NotFound):
        asked.machine("web1")
    with pytest.raises(NotFound):
        await asked.job(1)
    assert asked.machines() == []
    assert not asked.daemon().ready


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder with a short path: sockets need one."""
    with TemporaryDirectory(prefix="bs-") as folder:
        found = prepare(Path(folder))
        (found / "archive.img").write_bytes(bytes(range(256)) * 4096)
        with (found / "c.yaml").open("a") as config:
            config.write(ARCHIVE)
        try:
            yield found
        finally:
            bury_intake(found)


def test_a_machine_that_is_scanned_at_rest(place: Place) -> None:
    """A person starts it; a mark compares it again."""
    with hosted(place) as host:
        host.until("ready for replication", "archive", job=None)
        job = host.operate("start-replication", "archive")
        assert host.ended(job["id"])["state"] == "succeeded"
        host.until("replicating", "archive")
        with (place / "archive.img").open("r+b") as image:
            image.write(b"news")
        made = host.ended(host.operate("mark", "archive")["id"])
        assert made["state"] == "succeeded", made
        (place / "archive.img").rename(place / "elsewhere.img")
        failed = host.ended(host.operate("mark", "archive")["id"])
        assert failed["problem"]["error"] == "SourceMissing"
        (place / "elsewhere.img").rename(place / "archive.img")
        host.until("replicating", "archive")
        with pytest.raises(Refused):
            host.operate("resume", "archive")
        host.end()
    place.json("restore", "archive", *KEYS, "--to", "back")
    assert (place / "back/archive-all.img").read_bytes() == (place / "archive.img").read_bytes()
