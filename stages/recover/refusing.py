"""What a restore refuses before anything is written, because it would destroy something."""

from __future__ import annotations

from stages.ports import Files, FileStat
from stages.recover.target import Target, is_named, refused


def check_targets(files: Files, targets: list[Target], identities: list[str]) -> None:
    """Refuse, before anything is written, what would destroy something. Raises ``TargetError``."""
    seen: set[tuple[int, int]] = set()
    for target, identity in zip(targets, identities, strict=True):
        found = files.stat(target.path)
        if target.device:
            _check_device(files, target, found, seen)
        elif target.onto:
            _check_file(target, found, seen)
        elif found is not None and not is_named(files, target, identity):
            raise refused(target, "exists already", "choose another folder, or move it away")


def _check_device(
    files: Files, target: Target, found: FileStat | None, seen: set[tuple[int, int]]
) -> None:
    if found is None or not found.is_block:
        raise refused(target, "is not a block device", "give the path of a device")
    if (found.device, found.inode) in seen:
        raise refused(target, "is given for two disks", "every disk needs a device of its own")
    seen.add((found.device, found.inode))
    where = files.mounted(target.path)
    if where is not None:
        raise refused(target, f"is in use at {where}", "unmount it first")
    if found.size < target.disk.size:
        raise refused(
            target,
            f"holds {found.size} bytes, the disk has {target.disk.size}",
            "choose a device of at least that size",
        )


def _check_file(target: Target, found: FileStat | None, seen: set[tuple[int, int]]) -> None:
    if found is None or not found.is_file:
        raise refused(target, "is not a file", "give the path of an image or a device")
    if (found.device, found.inode) in seen:
        raise refused(target, "is given for two disks", "every disk needs a file of its own")
    seen.add((found.device, found.inode))
    if found.size != target.disk.size and not target.resize:
        raise refused(
            target,
            f"holds {found.size} bytes, the disk has {target.disk.size}",
            "is it the right file? with --resize it gets the size of the disk",
        )
