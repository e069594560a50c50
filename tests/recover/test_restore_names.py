"""What a restore never touches, and when the files of a machine get their names."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from stages.errors import TargetError
from stages.model import BLOCK
from stages.ports import OpenFile
from stages.system import SystemFiles
from tests.ports.watched import WatchedFiles
from tests.recover.past import noise, past
from tests.recover.targets import (
    ROOT,
    TWO,
    Stopped,
    disk,
    is_restored,
    named,
    restore,
    second,
    stop_after,
    targets,
    tree,
    two_disks,
)


def put(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


async def test_the_partial_file_of_another_point_is_refused(tmp_path: Path) -> None:
    """Also of a small disk: its first window would be all of it."""
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        with pytest.raises(Stopped):
            await restore(made, to, seq=1, window=7, advance=stop_after(20))
        before = tree(tmp_path)
        with pytest.raises(TargetError, match="another point") as caught:
            await restore(made, to, seq=2)
        assert "delete" in caught.value.hint
        assert tree(tmp_path) == before
        await restore(made, to, seq=1)
        assert is_restored(made, to, seq=1)


@pytest.mark.parametrize("progress", [None, b"", b"[]", b"{}", b'{"of": 1, "done": 0, "file": []}'])
async def test_a_partial_file_of_nobodys_is_refused(tmp_path: Path, progress: bytes | None) -> None:
    async with past(disk(9 * BLOCK)) as made:
        await made.write((ROOT, noise(0, 3)))
        to = targets(made, tmp_path)
        put(to[0].partial, b"someone's")
        if progress is not None:
            put(f"{to[0].partial}.progress", progress)
        with pytest.raises(TargetError, match="another point"):
            await restore(made, to)
        assert tree(tmp_path)["root.partial"] == b"someone's"


async def test_a_partial_file_cut_by_someone_is_begun_again(tmp_path: Path) -> None:
    async with past(disk(300 * BLOCK)) as made:
        await made.write((ROOT, noise(0, 300)))
        to = targets(made, tmp_path)
        with pytest.raises(Stopped):
            await restore(made, to, window=100, advance=stop_after(3))
        put(to[0].partial, tree(tmp_path)["root.partial"][:50])
        report = await restore(made, to, window=100)
        assert report.disks[0].resumed_at == 0
        assert is_restored(made, to)


async def test_what_exists_is_never_touched(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        put(to[1].path, b"precious")
        with pytest.raises(TargetError, match="exists already"):
            await restore(made, to)
        assert tree(tmp_path) == {"data": b"precious"}


async def test_what_comes_into_being_meanwhile_is_not_touched(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)

        def advance(done: int) -> None:
            put(to[1].path, b"precious")

        with pytest.raises(TargetError, match="meanwhile") as caught:
            await restore(made, to, advance=advance)
        assert to[1].partial in caught.value.hint
        assert tree(tmp_path)["data"] == b"precious"
        with pytest.raises(TargetError, match="exists already"):
            await restore(made, to)
        SystemFiles().unlink(to[1].path)
        await restore(made, to)
        assert is_restored(made, to)


async def test_two_processes_do_not_restore_to_one_place(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        other = SystemFiles().open_write(to[0].partial, create=True)
        assert other.lock()
        with pytest.raises(TargetError, match="another process"):
            await restore(made, to)
        other.close()
        await restore(made, to)
        assert is_restored(made, to)


async def test_a_file_finished_by_another_process_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """It is opened as .partial, then the other one names it and lets go of the lock."""
    async with past(disk(9 * BLOCK)) as made:
        await made.write((ROOT, noise(0, 3)))
        to = targets(made, tmp_path)

        class Slow(SystemFiles):
            def open_write(
                self,
                path: str,
                *,
                create: bool = False,
                new: bool = False,
                exclusive: bool = False,
                direct: bool = False,
            ) -> OpenFile:
                Path(path).write_bytes(b"theirs")
                file = super().open_write(path, create=create, new=new)
                Path(path).rename(to[0].path)
                return file

        with pytest.raises(TargetError, match="finished by another process"):
            await restore(made, to, files=Slow())
        assert tree(tmp_path) == {"root": b"theirs"}


async def test_all_disks_get_their_names_together(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        seen: list[set[str]] = []
        await restore(made, to, window=100, advance=lambda _: seen.append(set(tree(tmp_path))))
        assert all(names.isdisjoint({"root", "data"}) for names in seen)
        assert is_restored(made, to)


async def test_a_crash_between_two_names_is_got_over(tmp_path: Path) -> None:
    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        with pytest.raises(TargetError):
            await restore(made, to, files=WatchedFiles(second("link")))
        assert named(to) == to[:1]
        report = await restore(made, to)
        assert report.disks[0].resumed_at == TWO[0].size
        assert is_restored(made, to)


async def test_where_links_are_not_known(tmp_path: Path) -> None:
    def no_links(name: str, path: str, call):  # type: ignore[no-untyped-def]
        if name == "link":
            raise OSError(errno.EPERM, "Operation not permitted", path)
        return call()

    async with past(*TWO) as made:
        await two_disks(made)
        to = targets(made, tmp_path)
        await restore(made, to, files=WatchedFiles(no_links))
        assert is_restored(made, to)
        with pytest.raises(TargetError, match="meanwhile"):
            await restore(
                made,
                targets(made, tmp_path / "other"),
                files=WatchedFiles(no_links),
                advance=lambda _: put(f"{tmp_path}/other/data", b"mine"),
            )
