"""When a replica is looked after again: in virtual time, over a real vault in a folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from pipeline.site.config import load_site
from pipeline.site.following import Followers
from pipeline.site.health import Follows, render
from pipeline.site.replicas import bring_up
from pipeline.site.standing import standing
from stages.ports import Machine
from stages.store.file import FileStore
from stages.system import SystemEntropy, SystemFiles
from stages.vault.keyfile import encode_private, encode_public
from tests.config.support import SITE
from tests.daemon.test_ladder import VirtualClock
from tests.ports.watched import InlineOffload, WatchedFiles, unsynced
from tests.recover.past import PEOPLE, Past, noise
from tests.replica.test_crashes import DISKS, ROOT
from tests.vault.author import Author
from tests.vault.support import put_charter, seeded_machine

EVERY = 7.0


class _Scene:
    """A site's configuration, its vault, who writes to it."""

    def __init__(self, folder: Path):
        files = WatchedFiles(unsynced)
        self.clock = VirtualClock()
        self.ports = Machine(self.clock, InlineOffload(), SystemEntropy(), files)
        self.folder = folder
        text = SITE.read_text().replace("/srv/backstay", str(folder))
        text = text.replace("/etc/backstay", str(folder)).replace("every: 5s", f"every: {EVERY:g}s")
        (folder / "site.yaml").write_text(text)
        second = encode_private(PEOPLE.second, None, self.ports.entropy)
        (folder / "replica.key").write_bytes(second)
        (folder / "backstay.pub").write_bytes(encode_public(PEOPLE.operator.public))
        self.config = load_site(str(folder / "site.yaml"))
        self.followers = Followers(self.ports, self.config)
        self.vault = folder / "standby"
        (self.vault / ".tmp").mkdir(parents=True)  # as 'backstay site --create' leaves it

    async def found(self) -> Past:
        """A vault, and its machine's writer."""
        store = FileStore(str(self.vault), self.ports)
        await put_charter(store, PEOPLE.charter, PEOPLE.operator.signer)
        (self.folder / "state").mkdir()
        author = Author(PEOPLE, store, str(self.folder / "state"), seeded_machine("site"))
        await author.begin()
        made = Past(author)
        await made.describe(*DISKS)
        await made.write((ROOT, noise(0, 5)))
        return made

    @property
    def point(self) -> int:
        """Where the replica is; 0 for nowhere."""
        (found,) = standing(SystemFiles(), self.config)
        return found.record.at.seq if found.record and found.record.at else 0

    @property
    def trouble(self) -> str:
        (found,) = standing(SystemFiles(), self.config)
        return found.trouble


@asynccontextmanager
async def _at_work(scene: _Scene) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.followers.run)
        yield
        nursery.cancel_scope.cancel()


async def _until(true: Callable[[], bool]) -> float:
    """Wait, a second at a time; how many seconds."""
    begun = trio.current_time()
    with trio.fail_after(10_000):
        while not true():  # noqa: ASYNC110 - it is a file that changes
            await trio.sleep(1)
    return trio.current_time() - begun


async def test_what_is_not_there_yet_comes(tmp_path: Path, autojump_clock: MockClock) -> None:
    scene = _Scene(tmp_path)
    async with _at_work(scene):
        await trio.sleep(60)
        assert (scene.point, scene.trouble) == (0, "")
        made = await scene.found()
        assert await _until(lambda: scene.point == made.tail) <= 11
        await made.write((ROOT, noise(3, 1, word="x")))
        assert await _until(lambda: scene.point == made.tail) <= EVERY + 1
        made.author.end()


async def test_how_far_it_follows(tmp_path: Path, autojump_clock: MockClock) -> None:
    scene = _Scene(tmp_path)

    async def told() -> Follows:
        (found,) = await scene.followers.standing()
        return found

    async with _at_work(scene):
        await trio.sleep(60)
        before = await told()
        assert (before.status, before.point, before.age, before.looked) == (
            "none",
            None,
            None,
            None,
        )
        assert before.waits
        assert not before.trouble
        made = await scene.found()
        await _until(lambda: scene.point == made.tail)
        await trio.sleep(3 * EVERY)
        there = await told()
        assert (there.status, there.point, there.waits) == ("whole", made.tail, "")
        assert there.looked is not None
        assert there.looked <= EVERY
        scene.vault.rename(tmp_path / "away")
        await _until(lambda: "again in 60 s" in scene.trouble)
        scene.clock.step = made.author.ledger.tail.stamp / 1e6 + 100 - trio.current_time()
        await trio.sleep(50)
        lost = await told()
        assert (lost.point, lost.trouble) == (made.tail, scene.trouble)
        assert lost.age == pytest.approx(150)
        assert lost.looked is not None
        assert lost.looked >= 50
        lines = render({"standby": "No such file"}, [before, lost]).splitlines()
        assert 'backstay_site_vault_up{vault="standby"} 0' in lines
        assert f'backstay_site_replica_point{{machine="web1"}} {made.tail}' in lines
        assert lines.count('backstay_site_replica_trouble{machine="web1"} 1') == 1
        assert sum(line.startswith("backstay_site_replica_age_seconds{") for line in lines) == 1
        made.author.end()


async def test_an_idle_machine_costs_two_looks(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, gets = _Scene(tmp_path), list[str]()
    made = await scene.found()
    really = FileStore.get

    async def counted(store: FileStore, key: str, *more: int) -> bytes:
        gets.append(key)
        return await really(store, key, *more)

    async with _at_work(scene):
        await _until(lambda: scene.point == made.tail)
        monkeypatch.setattr(FileStore, "get", counted)
        del gets[:]
        await trio.sleep(10 * 60)
        rounds = gets.count("vault.json")
        assert 7 <= rounds <= 10
        await made.write((ROOT, noise(3, 1, word="x")))
        assert await _until(lambda: scene.point == made.tail) <= EVERY + 1
        made.author.end()


async def test_what_was_passed_over_is_told_while_it_is(
    tmp_path: Path, autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    """A newer point whose data has not arrived: the replica says that it is not there, and why."""
    scene = _Scene(tmp_path)
    made = await scene.found()
    await made.write((ROOT, noise(3, 30, word="x")))
    newest = max(scene.vault.glob("groups/*/data/*/*"))

    def notes() -> tuple[str, ...]:
        (found,) = standing(SystemFiles(), scene.config)
        return found.notes

    async with _at_work(scene):
        newest.rename(tmp_path / "late")
        await _until(lambda: scene.point == made.tail - 1)
        assert scene.trouble == ""
        what = newest.relative_to(scene.vault)
        told = f"point #{made.tail} passed over: {what} has not all arrived"
        assert notes() == (told,)
        await trio.sleep(600)
        assert capfd.readouterr().err.count(f"web1: note: {told}") == 1
        (tmp_path / "late").rename(newest)
        await _until(lambda: scene.point == made.tail)
        assert notes() == ()
        made.author.end()


async def test_the_ladder_and_what_is_not_tried_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, rounds = _Scene(tmp_path), list[float]()
    made = await scene.found()

    async def counted(*arguments: object) -> object:
        rounds.append(trio.current_time())
        return await bring_up(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.site.following.bring_up", counted)
    away = tmp_path / "away"
    async with _at_work(scene):
        await _until(lambda: scene.point == made.tail)
        scene.vault.rename(away)
        await _until(lambda: "again in 60 s" in scene.trouble)
        del rounds[:]
        await trio.sleep(60 + 120 + 240 + 480 + 600 + 1800 + 100)
        waits = [round(later - one) for one, later in itertools.pairwise(rounds)]
        assert [each // 60 for each in waits] == [2, 4, 8, 10, 30]  # and the store's own patience
        away.rename(scene.vault)
        scene.followers.exchange(scene.config)  # SIGHUP: at once
        await made.write((ROOT, noise(3, 1, word="x")))
        assert await _until(lambda: scene.point == made.tail) <= EVERY + 1
        assert scene.trouble == ""

        record = tmp_path / "replicas/web1/replica.json"
        record.write_text(json.dumps({"version": 99}))
        await _until(lambda: "not tried again until SIGHUP" in scene.trouble)
        del rounds[:]
        await trio.sleep(10_000)
        assert rounds == []
        record.unlink()
        scene.followers.exchange(scene.config)
        assert await _until(lambda: scene.point == made.tail) <= 2
        made.author.end()
