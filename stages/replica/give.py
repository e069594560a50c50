"""Handing a replica's files over: they get other names, and nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stages import durable
from stages.errors import TargetError
from stages.model import Disk
from stages.ports import Files
from stages.replica import trouble
from stages.replica.record import Mark, Record, Status, path_of


def marks_of(files: Files, folder: str, disks: tuple[Disk, ...]) -> tuple[Mark, ...]:
    """The files as they are now; zeros for one that is not there. Blocks."""
    found = (files.stat(path_of(folder, disk.number)) for disk in disks)
    return tuple(Mark(0, 0, 0) if s is None else Mark(s.inode, s.size, s.mtime_ns) for s in found)


def give(
    files: Files, folder: str, now: Record, to: str, put: Callable[[Record], None]
) -> list[str]:
    """Move the files of a record that is whole, or was being given, to ``to``: their new paths.

    ``put`` replaces the record. Blocks. Raises ``TargetError`` if something would be overwritten
    or copied, ``IllegalOperation`` if the files are no recovery point or are given elsewhere.
    """
    pairs = [
        (path_of(folder, disk.number), f"{to}/{now.machine}-{disk.name}.img") for disk in now.disks
    ]
    if now.status is Status.GIVEN:
        return [target for _, target in pairs]
    if now.status is Status.WHOLE or now.to != to:
        _check(files, folder, now, to, [target for _, target in pairs])
        now = replace(now, status=Status.GIVING, to=to)
        put(now)
    for source, target in pairs:
        _move(files, source, target)
    # Its own sync makes it durable that the files are gone from here.
    put(replace(now, status=Status.GIVEN))
    return [target for _, target in pairs]


def _check(files: Files, folder: str, now: Record, to: str, targets: list[str]) -> None:
    """All of it can be moved there, and none was moved elsewhere."""
    if now.status is Status.GIVING:
        before = [f"{now.to}/{now.machine}-{disk.name}.img" for disk in now.disks]
        if any(files.stat(path) is not None for path in before):
            raise trouble.given(now)
    if marks_of(files, folder, now.disks) != now.marks:
        raise trouble.not_whole(folder)
    for target in targets:
        if files.stat(target) is not None:
            raise trouble.exists(target)
    durable.make_dirs(files, to)
    here, goal = files.stat(folder), files.stat(to)
    if here is None or goal is None or here.device != goal.device:
        raise TargetError(
            "is on another file system than the replica: its disks would have to be copied",
            operation="give replica",
            subject=to,
            hint=f"give a folder beside {folder}; to copy, 'backstay restore'",
        )


def _move(files: Files, source: str, target: str) -> None:
    here, there = files.stat(source), files.stat(target)
    if here is None:  # it was moved before
        if there is None:
            raise TargetError("has vanished", operation="give replica", subject=target)
        return
    if there is not None and (here.device, here.inode) != (there.device, there.inode):
        raise trouble.exists(target)
    if there is not None:  # both names: an earlier call ended in between
        files.sync_dir(durable.parent(target))
        durable.remove(files, source)
        return
    file = files.open_write(source)
    try:
        if not durable.finish(files, file, source, target):
            raise trouble.exists(target)
    finally:
        file.close()
