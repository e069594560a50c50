"""The file store when any one operation of the file system fails, before or after it was done."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from stages.errors import (
    BackstayError,
    NoSpace,
    OutcomeUnknown,
    OutOfMemory,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from stages.store.file import FileStore
from stages.store.port import Put
from tests.ports.watched import Tripwire, WatchedFiles, machine

WHOLE = bytes(range(256)) * 40
KINDS: dict[int, type[BackstayError]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EACCES: StoreDenied,
    errno.EROFS: StoreDenied,
    errno.EIO: StoreUnreachable,
    errno.ESTALE: StoreUnreachable,
    errno.EMFILE: StoreUnreachable,
    errno.ENOMEM: OutOfMemory,
}
MOST = 40  # operations of one call; more would be a loop


async def prepared(root: Path) -> FileStore:
    store = FileStore(str(root), machine(WatchedFiles(Tripwire())))
    await store.create_root()
    await store.put("a/other", [b"other"])
    return store


def temporaries(root: Path) -> list[str]:
    return [path.name for path in (root / ".tmp").iterdir()]


def check_error(error: BackstayError, code: int, operation: str, root: Path) -> None:
    assert isinstance(error, KINDS[code])
    assert (error.operation, error.subject) == (operation, "a/b/c")
    assert error.hint
    assert str(root) in error.hint or isinstance(error, OutOfMemory)
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", KINDS, ids=lambda code: errno.errorcode[code])
async def test_put(tmp_path: Path, code: int, late: bool) -> None:
    seen: set[str] = set()
    for number in range(MOST):
        root = tmp_path / str(number)
        await prepared(root)
        trip = Tripwire(number, code, late)
        store = FileStore(str(root), machine(WatchedFiles(trip)))
        caught: BackstayError | None = None
        try:
            assert await store.put("a/b/c", [WHOLE[:100], WHOLE[100:]]) is Put.CREATED
        except BackstayError as error:
            caught = error
        if not trip.tripped:
            break
        seen.add(trip.tripped)
        stored = (root / "a/b/c").exists()
        assert not stored or (root / "a/b/c").read_bytes() == WHOLE
        assert stored or caught
        if caught:
            check_error(caught, code, "put", root)
            if KINDS[code] is StoreUnreachable:
                assert isinstance(caught, OutcomeUnknown) is stored
        # What could not be removed, and what was opened without our being told.
        left = (trip.tripped == "unlink" and not late) or (trip.tripped == "open_write" and late)
        assert len(temporaries(root)) == left
        assert await store.put("a/b/c", [WHOLE]) is (Put.EXISTS if stored else Put.CREATED)
        assert await store.get("a/b/c") == WHOLE
    else:
        raise AssertionError(trip.names)
    assert {"open_write", "append", "fsync", "close", "link", "unlink", "sync_dir", "mkdir"} <= seen


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", KINDS, ids=lambda code: errno.errorcode[code])
async def test_delete(tmp_path: Path, code: int, late: bool) -> None:
    for number in range(MOST):
        root = tmp_path / str(number)
        await (await prepared(root)).put("a/b/c", [WHOLE])
        trip = Tripwire(number, code, late)
        store = FileStore(str(root), machine(WatchedFiles(trip)))
        caught: BackstayError | None = None
        try:
            assert await store.delete("a/b/c") is True
        except BackstayError as error:
            caught = error
        if not trip.tripped:
            break
        stored = (root / "a/b/c").exists()
        assert not stored or (root / "a/b/c").read_bytes() == WHOLE
        assert caught or not stored
        if caught:
            check_error(caught, code, "delete", root)
        assert await store.delete("a/b/c") is stored
        assert [info.key for info in await store.page("")] == ["a/other"]
        assert temporaries(root) == []
    else:
        raise AssertionError(trip.names)
    assert number >= 3


@pytest.mark.parametrize("operation", ["get", "info", "list"])
@pytest.mark.parametrize("code", KINDS, ids=lambda code: errno.errorcode[code])
async def test_reading(tmp_path: Path, code: int, operation: str) -> None:
    """A failing read is never taken for a missing object."""
    await (await prepared(tmp_path / "s")).put("a/b/c", [WHOLE])
    for number in range(MOST):
        trip = Tripwire(number, code)
        store = FileStore(f"{tmp_path}/s", machine(WatchedFiles(trip)))
        calls = {
            "get": lambda store=store: store.get("a/b/c"),
            "info": lambda store=store: store.info("a/b/c"),
            "list": lambda store=store: store.page("a/b/c"),
        }
        try:
            answer = await calls[operation]()
        except BackstayError as error:
            check_error(error, code, operation, tmp_path / "s")
        else:
            assert answer == WHOLE if operation == "get" else answer
            assert not trip.tripped
            break
    else:
        raise AssertionError(trip.names)


async def test_no_hard_links_is_said_and_not_retried(tmp_path: Path) -> None:
    root = tmp_path / "s"
    await prepared(root)
    count = Tripwire()
    await FileStore(str(root), machine(WatchedFiles(count))).put("a/x", [b"x"])
    for code in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
        trip = Tripwire(count.names.index("link"), code)
        with pytest.raises(StoreError) as caught:
            await FileStore(str(root), machine(WatchedFiles(trip))).put("a/b", [WHOLE])
        assert type(caught.value) is StoreError
        assert not caught.value.recoverable
        assert "hard links" in caught.value.hint
        assert temporaries(root) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
async def test_a_directory_that_cannot_be_synced_is_no_place_for_a_store(
    tmp_path: Path, code: int
) -> None:
    await prepared(tmp_path / "s")
    count = Tripwire()
    await FileStore(f"{tmp_path}/s", machine(WatchedFiles(count))).put("a/x", [b"x"])
    trip = Tripwire(count.names.index("sync_dir"), code)
    with pytest.raises(StoreError) as caught:
        await FileStore(f"{tmp_path}/s", machine(WatchedFiles(trip))).put("a/b", [WHOLE])
    assert type(caught.value) is StoreError
