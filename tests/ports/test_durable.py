"""The atomic-write primitives: what each operation that fails leaves behind."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages import durable
from stages.ports import Buffer, Files
from stages.system import SystemFiles
from tests.ports.watched import Tripwire, WatchedFiles

OLD, NEW = b"old" * 100, b"new" * 5000
PARTS: list[Buffer] = [NEW[:1], b"", memoryview(NEW)[1:9000], bytearray(NEW[9000:])]


TOKENS = (str(number) for number in itertools.count())


def replace(files: Files, root: Path) -> bool:
    durable.replace(files, f"{root}/file", NEW, token=next(TOKENS))
    return True


def create(files: Files, root: Path) -> bool:
    token = next(TOKENS)
    return durable.create(files, f"{root}/file", PARTS, temp_dir=f"{root}/tmp", token=token)


def finish(files: Files, root: Path) -> bool:
    temp = f"{root}/tmp/{durable.TEMP_MARK}t"
    file = files.open_write(temp, create=True)
    try:
        file.pwrite(0, NEW)
        return durable.finish(files, file, temp, f"{root}/file")
    finally:
        file.close()


def remove(files: Files, root: Path) -> bool:
    return durable.remove(files, f"{root}/file")


Call = Callable[[Files, Path], bool]
BEFORE: dict[Call, bytes | None] = {replace: OLD, create: None, finish: None, remove: NEW}
AFTER: dict[Call, bytes | None] = {replace: NEW, create: NEW, finish: NEW, remove: None}

NAMING: dict[Call, str] = {replace: "rename", create: "link", finish: "link", remove: "unlink"}


def prepared(root: Path, call: Call) -> Path:
    (root / "tmp").mkdir(parents=True)
    before = BEFORE[call]
    if before is not None:
        (root / "file").write_bytes(before)
    return root


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def temporaries(root: Path) -> list[str]:
    return [path.name for path in root.rglob(f"*{durable.TEMP_MARK}*")]


def failing(tmp_path: Path, call: Call) -> Iterator[tuple[Path, Tripwire, bool]]:
    """Run ``call`` in fresh folders, with each of its operations failing before and after."""
    count = Tripwire()
    assert call(WatchedFiles(count), prepared(tmp_path / "whole", call))
    for number in range(len(count.names)):
        for late in (False, True):
            root = prepared(tmp_path / f"{number}-{late}", call)
            trip = Tripwire(number, errno.EIO, late)
            with pytest.raises(OSError, match="Input/output") as caught:
                call(WatchedFiles(trip), root)
            assert caught.value.errno == errno.EIO
            yield root, trip, late


@pytest.mark.parametrize("call", BEFORE, ids=lambda call: call.__name__)
def test_any_operation_fails(tmp_path: Path, call: Call) -> None:
    for root, trip, late in failing(tmp_path, call):
        assert content(root / "file") in (BEFORE[call], AFTER[call]), trip.names
        could_not_remove = trip.tripped == "unlink" and not late
        unknown_open = trip.tripped == "open_write" and late
        if call is not finish and not could_not_remove and not unknown_open:
            assert temporaries(root) == [], trip.names
        call(SystemFiles(), root)
        assert content(root / "file") == AFTER[call]


@pytest.mark.parametrize("call", BEFORE, ids=lambda call: call.__name__)
def test_the_order_is_write_sync_name_sync(tmp_path: Path, call: Call) -> None:
    trip = Tripwire()
    assert call(WatchedFiles(trip), prepared(tmp_path / "root", call))
    assert content(tmp_path / "root" / "file") == AFTER[call]
    names = trip.names
    naming = NAMING[call]
    assert names.index(naming) < names.index("sync_dir")
    assert trip.paths[names.index("sync_dir")] == str(tmp_path / "root")
    if call is not remove:
        assert names.index("fsync") < names.index(naming)


@pytest.mark.parametrize("call", [create, finish])
def test_what_exists_is_kept_and_synced(tmp_path: Path, call: Call) -> None:
    root = prepared(tmp_path / "root", call)
    (root / "file").write_bytes(OLD)
    trip = Tripwire()
    assert not call(WatchedFiles(trip), root)
    assert content(root / "file") == OLD
    if call is create:  # the winner may have died before its own fsync of the directory
        assert trip.names[-1] == "sync_dir"
        assert temporaries(root) == []


def test_remove_syncs_also_when_nothing_was_there(tmp_path: Path) -> None:
    trip = Tripwire()
    assert not durable.remove(WatchedFiles(trip), f"{tmp_path}/file")
    assert trip.names == ["unlink", "sync_dir"]


def test_a_part_that_is_no_buffer_leaves_no_temporary(tmp_path: Path) -> None:
    root = prepared(tmp_path / "root", create)
    bad: list[bytes] = [b"x", "not bytes"]  # type: ignore[list-item]
    with pytest.raises(TypeError):
        durable.create(SystemFiles(), f"{root}/file", bad, temp_dir=f"{root}/tmp", token="t")
    assert temporaries(root) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_file_system_without_hard_links_is_told_apart(tmp_path: Path, code: int) -> None:
    root = prepared(tmp_path / "root", create)
    count = Tripwire()
    create(WatchedFiles(count), prepared(tmp_path / "whole", create))
    with pytest.raises(durable.NoHardLinks) as caught:
        create(WatchedFiles(Tripwire(count.names.index("link"), code)), root)
    assert caught.value.errno == code
    assert temporaries(root) == []
    assert content(root / "file") is None


def test_make_dirs_syncs_each_new_name(tmp_path: Path) -> None:
    trip = Tripwire()
    durable.make_dirs(WatchedFiles(trip), f"{tmp_path}/a/b")
    assert [step for step in trip.steps if step[0] != "stat"] == [
        ("mkdir", f"{tmp_path}/a"),
        ("sync_dir", str(tmp_path)),
        ("mkdir", f"{tmp_path}/a/b"),
        ("sync_dir", f"{tmp_path}/a"),
    ]
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_make_dirs_below_syncs_names_others_made_and_remembers(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    trip = Tripwire()
    known: set[str] = set()
    for _ in range(2):
        durable.make_dirs_below(WatchedFiles(trip), str(tmp_path), f"{tmp_path}/a/b", known)
    assert trip.steps == [
        ("mkdir", f"{tmp_path}/a"),
        ("sync_dir", str(tmp_path)),
        ("mkdir", f"{tmp_path}/a/b"),
        ("sync_dir", f"{tmp_path}/a"),
    ]
    assert known == {f"{tmp_path}/a", f"{tmp_path}/a/b"}


def test_make_dirs_below_never_makes_the_root(tmp_path: Path) -> None:
    root = f"{tmp_path}/gone"
    with pytest.raises(FileNotFoundError):
        durable.make_dirs_below(SystemFiles(), root, f"{root}/a", set())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("late", [False, True])
def test_make_dirs_below_any_operation_fails(tmp_path: Path, late: bool) -> None:
    for number in range(4):
        root = tmp_path / str(number)
        root.mkdir()
        known: set[str] = set()
        with pytest.raises(OSError, match="No space"):
            durable.make_dirs_below(
                WatchedFiles(Tripwire(number, errno.ENOSPC, late)), str(root), f"{root}/a/b", known
            )
        trip = Tripwire()
        durable.make_dirs_below(WatchedFiles(trip), str(root), f"{root}/a/b", known)
        assert ("sync_dir", f"{root}/a") in trip.steps  # what failed is done again
        assert (root / "a/b").is_dir()


@pytest.mark.parametrize(
    ("path", "above"), [("a", "."), ("/a", "/"), ("a/b", "a"), ("/a/b", "/a"), ("./a", ".")]
)
def test_parent(path: str, above: str) -> None:
    assert durable.parent(path) == above
