"""The root of a file store: gone, unmounted, full, read-only, a copy; and its temporaries."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from stages.errors import NoSpace, StoreDenied, StoreError, StoreUnreachable
from stages.store.file import TEMP_AGE, FileStore
from stages.store.port import Put
from stages.system import this_machine
from tests.store.places import contents, made


def calls(store: FileStore) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "put": lambda: store.put("a/b", [b"x"]),
        "get": lambda: store.get("a/b"),
        "info": lambda: store.info("a/b"),
        "list": lambda: store.page(""),
        "delete": lambda: store.delete("a/b"),
        "sweep": store.sweep,
    }


@pytest.mark.parametrize("empty_mount_point", [False, True])
async def test_a_vanished_root_is_unreachable_and_never_made_again(
    tmp_path: Path, empty_mount_point: bool
) -> None:
    root = tmp_path / "s"
    store = await made(root)
    await store.put("a/b", [b"x"])
    root.rename(tmp_path / "unmounted")
    if empty_mount_point:
        root.mkdir()
    for operation, call in calls(store).items():
        if operation == "sweep" and empty_mount_point:
            continue
        with pytest.raises(StoreUnreachable) as caught:
            await call()
        assert type(caught.value) is StoreUnreachable
        assert caught.value.operation == operation
        assert str(root) in caught.value.hint
        assert root.exists() is empty_mount_point
        assert not empty_mount_point or list(root.iterdir()) == []
    if empty_mount_point:
        root.rmdir()
    (tmp_path / "unmounted").rename(root)
    assert await store.get("a/b") == b"x"
    assert await store.put("a/c", [b"y"]) is Put.CREATED


async def test_a_copy_without_its_temporary_folder_can_be_read_only(tmp_path: Path) -> None:
    store = await made(tmp_path / "s")
    await store.put("a/b", [b"x"])
    (tmp_path / "s/.tmp").rmdir()
    assert await store.get("a/b") == b"x"
    assert await store.info("c") is None
    assert [info.key for info in await store.page("")] == ["a/b"]
    with pytest.raises(StoreUnreachable) as caught:
        await store.put("c", [b"y"])
    assert ".tmp" in caught.value.hint
    assert contents(tmp_path / "s") == {"a/b": b"x"}


async def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file")
    with pytest.raises(StoreError):
        await made(tmp_path / "s")
    store = FileStore(f"{tmp_path}/s", this_machine())
    with pytest.raises(StoreUnreachable):
        await store.put("a", [])


async def test_sweep_removes_old_temporaries_only(tmp_path: Path) -> None:
    store = await made(tmp_path / "s")
    await store.put("a/b", [b"x"])
    temp = tmp_path / "s/.tmp"
    now = (tmp_path / "s/a/b").stat().st_mtime
    for name, age in ((".tmp-old", TEMP_AGE + 60), (".tmp-new", TEMP_AGE - 600), ("note", 1e6)):
        (temp / name).write_text("left behind")
        os.utime(temp / name, (now - age, now - age))
    assert await store.sweep() == 1
    assert sorted(path.name for path in temp.iterdir()) == [".tmp-new", "note"]
    assert await store.get("a/b") == b"x"


def mounts(*command: str) -> bool:
    """Run a mount command; False if this process may not."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where the test may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounts("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)):
        pytest.skip("mounting a tmpfs takes root")
    yield disk
    mounts("umount", str(disk))


async def test_a_full_disk_keeps_what_is_whole_and_goes_on_once_there_is_room(
    tiny_disk: Path,
) -> None:
    store = await made(tiny_disk / "s")
    stored = 0
    with pytest.raises(NoSpace) as caught:
        for stored in range(100):
            await store.put(f"a/{stored}", [bytes([stored]) * 5000])
    assert caught.value.subject == f"a/{stored}"
    assert str(tiny_disk) in caught.value.hint
    assert contents(tiny_disk / "s") == {f"a/{n}": bytes([n]) * 5000 for n in range(stored)}
    assert await store.delete("a/0")
    assert await store.put(f"a/{stored}", [b"fits now"]) is Put.CREATED


async def test_a_read_only_root_reads_and_refuses_to_write(tiny_disk: Path) -> None:
    store = await made(tiny_disk / "s")
    await store.put("a/b", [b"x"])
    assert mounts("mount", "-o", "remount,ro", str(tiny_disk))
    assert await store.get("a/b") == b"x"
    assert [info.key for info in await store.page("")] == ["a/b"]
    for call in (store.put("a/c", [b"y"]), store.delete("a/b"), store.sweep()):
        with pytest.raises(StoreDenied):
            await call
    assert contents(tiny_disk / "s") == {"a/b": b"x"}


async def test_the_root_of_a_mount_that_goes_away(tiny_disk: Path) -> None:
    store = await made(tiny_disk)
    await store.put("a", [b"x"])
    assert mounts("umount", str(tiny_disk))
    for operation, call in calls(store).items():
        if operation != "sweep":
            with pytest.raises(StoreUnreachable):
                await call()
    assert contents(tiny_disk) == {}
