"""The file store's own promises: durability, folders that come and go, strangers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from stages.errors import ObjectMissing, StoreUnreachable
from stages.ports import Machine
from stages.store.file import FileStore
from stages.store.port import Put
from stages.system import ThreadOffload, this_machine
from tests.ports.watched import Tripwire, WatchedFiles, machine
from tests.store.conftest import quick
from tests.store.places import contents, made

T = TypeVar("T")


async def test_objects_are_private_files(tmp_path: Path) -> None:
    store = await made(tmp_path / "a/b/store")
    assert store.url == f"file:{tmp_path}/a/b/store"
    await store.put("x/y", [b"1", b"2"])
    assert contents(tmp_path / "a/b/store") == {"x/y": b"12"}
    assert (tmp_path / "a/b/store/x/y").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a/b/store/x").stat().st_mode & 0o777 == 0o700
    await store.create_root()
    assert await store.get("x/y") == b"12"


async def test_a_put_syncs_data_then_name_and_a_known_folder_only_once(tmp_path: Path) -> None:
    trip = Tripwire()
    store = await made(tmp_path / "s", machine(WatchedFiles(trip)))
    root = f"{tmp_path}/s"
    durable_steps = ("append", "fsync", "link", "sync_dir", "mkdir")

    async def steps_of(key: str) -> list[tuple[str, str]]:
        trip.names.clear()
        trip.paths.clear()
        await store.put(key, [b"x"])
        steps = [step for step in trip.steps if step[0] in durable_steps]
        return [(name, path.removeprefix(root)) for name, path in steps if "/.tmp/" not in path]

    assert await steps_of("a/b/1") == [
        ("mkdir", "/a"),
        ("sync_dir", ""),
        ("mkdir", "/a/b"),
        ("sync_dir", "/a"),
        ("link", "/a/b/1"),
        ("sync_dir", "/a/b"),
    ]
    assert trip.names.index("append") < trip.names.index("fsync") < trip.names.index("link")
    assert await steps_of("a/b/2") == [("link", "/a/b/2"), ("sync_dir", "/a/b")]
    assert await steps_of("a/b/2") == [("link", "/a/b/2"), ("sync_dir", "/a/b")]
    assert await steps_of("top") == [("link", "/top"), ("sync_dir", "")]


async def test_folders_of_another_process_are_synced_before_they_are_relied_on(
    tmp_path: Path,
) -> None:
    await (await made(tmp_path / "s")).put("a/1", [b"x"])
    trip = Tripwire()
    store = FileStore(f"{tmp_path}/s", machine(WatchedFiles(trip)))
    await store.put("a/2", [b"x"])
    assert ("sync_dir", f"{tmp_path}/s") in trip.steps


async def test_a_get_is_one_hop(tmp_path: Path) -> None:
    hops = 0

    class Counting(ThreadOffload):
        async def run(self, call: Callable[[], T]) -> T:
            nonlocal hops
            hops += 1
            return await super().run(call)

    real = this_machine()
    store = await made(tmp_path / "s", Machine(real.clock, Counting(2), real.entropy, real.files))
    hops = 0
    for call in (
        store.put("a/b", [b"x"]),
        store.get("a/b"),
        store.info("a/b"),
        store.page(""),
        store.delete("a/b"),
    ):
        before = hops
        await call
        assert hops == before + 1


async def test_two_stores_on_one_root_race_fairly(tmp_path: Path) -> None:
    first = await made(tmp_path / "s", quick())
    second = FileStore(f"{tmp_path}/s", quick())
    wins: list[Put] = []

    async def put(store: FileStore, key: str, data: bytes) -> None:
        wins.append(await store.put(key, [data]))

    for round_ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, first, f"r/{round_}/k", b"first" * 1000)
            nursery.start_soon(put, second, f"r/{round_}/k", b"second" * 1000)
        assert await first.get(f"r/{round_}/k") in (b"first" * 1000, b"second" * 1000)
    assert wins.count(Put.CREATED) == 20


async def test_a_key_inside_another_or_around_it_is_a_defect(tmp_path: Path) -> None:
    store = await made(tmp_path / "s")
    await store.put("a/b", [b"x"])
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(ValueError, match="is a folder of"):
            await store.put(key, [b"y"])
    assert contents(tmp_path / "s") == {"a/b": b"x"}


async def test_strangers_in_the_directory_are_passed_over(tmp_path: Path) -> None:
    store = await made(tmp_path / "s")
    await store.put("k/1", [b"x"])
    (tmp_path / "s/lost+found").mkdir(mode=0)
    (tmp_path / "s/README").write_text("not an object")
    (tmp_path / "s/.hidden").write_text("not an object")
    (tmp_path / "s/k/.nfs0001").write_text("not an object")
    (tmp_path / "s/k/empty").mkdir()
    (tmp_path / "s/k/dangling").symlink_to("nowhere")
    (tmp_path / "s/k/loop").symlink_to(".")
    os.mkfifo(tmp_path / "s/k/pipe")
    listed = [info.key for info in await store.page("", limit=3)]
    assert [key for key in listed if "loop" not in key] == ["k/1"]
    with pytest.raises(ObjectMissing):
        await store.get("k/pipe")
    assert await store.info("k/pipe") is None


async def test_delete_removes_folders_it_empties_and_no_others(tmp_path: Path) -> None:
    store = await made(tmp_path / "s")
    for key in ("a/b/c/1", "a/b/2", "z"):
        await store.put(key, [])
    await store.delete("a/b/c/1")
    assert sorted(path.name for path in (tmp_path / "s/a/b").iterdir()) == ["2"]
    await store.delete("a/b/2")
    await store.delete("z")
    assert [path.name for path in (tmp_path / "s").iterdir()] == [".tmp"]
    assert await store.put("a/b", []) is Put.CREATED


async def test_a_put_survives_deletes_in_the_same_folder(tmp_path: Path) -> None:
    on = quick()
    store = await made(tmp_path / "s", Machine(on.clock, ThreadOffload(8), on.entropy, on.files))

    async def come_and_go(worker: int) -> None:
        for round_ in range(40):
            key = f"a/b/c/{worker}"
            assert await store.put(key, [bytes([round_])]) is Put.CREATED
            assert await store.get(key) == bytes([round_])
            assert await store.delete(key) is True

    async with trio.open_nursery() as nursery:
        for worker in range(6):
            nursery.start_soon(come_and_go, worker)
    assert contents(tmp_path / "s") == {}


@dataclass
class AtLink:
    """Runs an action just before the first link, and notes what happens after it."""

    action: Callable[[], object]
    after: list[tuple[str, str]] = field(default_factory=list)
    done: bool = False

    def __call__(self, name: str, path: str, call: Callable[[], T]) -> T:
        if name == "link" and not self.done:
            self.done = True
            self.action()
        elif self.done:
            self.after.append((name, path))
        return call()


async def test_a_put_makes_its_folder_again_if_another_process_removed_it(tmp_path: Path) -> None:
    root = tmp_path / "s"

    def remove() -> None:
        (root / "a/b").rmdir()
        (root / "a").rmdir()

    hook = AtLink(remove)
    store = await made(root, machine(WatchedFiles(hook)))
    assert await store.put("a/b/c", [b"x"]) is Put.CREATED
    assert hook.done
    assert contents(root) == {"a/b/c": b"x"}


async def test_a_put_gives_up_if_its_folder_always_goes(tmp_path: Path) -> None:
    root = tmp_path / "s"

    def at_each_link(name: str, path: str, call: Callable[[], T]) -> T:
        if name == "link":
            (root / "a").rmdir()
        return call()

    store = await made(root, machine(WatchedFiles(at_each_link)))
    with pytest.raises(StoreUnreachable, match="again and again"):
        await store.put("a/b", [b"x"])
    assert contents(root) == {}


async def test_after_a_delete_beside_it_a_put_syncs_all_names_again(tmp_path: Path) -> None:
    """Another put may have made the folder again, and not synced its name yet."""
    root = tmp_path / "s"
    at_link, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        at_link.set()
        go_on.wait()
        (root / "a/b").mkdir(parents=True)

    hook = AtLink(wait)
    real = this_machine()
    store = await made(root, Machine(real.clock, ThreadOffload(4), real.entropy, real.files))
    await store.put("a/b/1", [b"1"])  # the folder is known now
    store._files = WatchedFiles(hook)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put, "a/b/2", [b"2"])
        await trio.to_thread.run_sync(at_link.wait)
        assert await store.delete("a/b/1")  # and with it the folder
        assert not (root / "a").exists()
        go_on.set()
    assert contents(root) == {"a/b/2": b"2"}
    synced = [path for name, path in hook.after if name == "sync_dir"]
    assert {f"{root}/a/b", f"{root}/a", str(root)} <= set(synced)


async def test_a_delete_that_is_still_running_counts_too(tmp_path: Path) -> None:
    root = tmp_path / "s"
    at_rmdir, go_on = threading.Event(), threading.Event()
    trip = Tripwire()

    def around(name: str, path: str, call: Callable[[], T]) -> T:
        if name == "rmdir":
            at_rmdir.set()
            go_on.wait()
        return trip(name, path, call)

    real = this_machine()
    on = Machine(real.clock, ThreadOffload(4), real.entropy, WatchedFiles(around))
    store = await made(root, on)
    await store.put("a/1", [b"1"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.delete, "a/1")
        await trio.to_thread.run_sync(at_rmdir.wait)
        trip.names.clear()
        trip.paths.clear()
        await store.put("a/2", [b"2"])
        named = trip.names.index("link")
        go_on.set()
    assert ("sync_dir", str(root)) in trip.steps[named:]
    assert contents(root) == {"a/2": b"2"}
