"""Atomic replace and durable creation: the only place that renames and links.

A crash at any instruction leaves either the old file or the new one, never a part. The sequence is
write to a temporary name, fsync, link or rename, fsync of the directory.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from stages.ports import Buffer, Files, OpenFile

TEMP_MARK = ".tmp-"

_LARGE = 256 << 10  # bytes from which a file is written past the page cache: nobody reads it soon
_LINK_REFUSED = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class NoHardLinks(OSError):
    """The file system refuses to link: nothing can be created there in one atomic step."""


def parent(path: str) -> str:
    """The directory part of ``path`` ("." for a bare name)."""
    head, slash, _ = path.rpartition("/")
    return head or ("/" if slash else ".")


def make_dirs(files: Files, path: str) -> None:
    """Create ``path`` and what is missing above it, each name durable. Mode 0700."""
    missing = []
    while files.stat(path) is None:
        missing.append(path)
        path = parent(path)
    for directory in reversed(missing):
        files.mkdir(directory)
        files.sync_dir(parent(directory))


def make_dirs_below(files: Files, root: str, path: str, known: set[str]) -> None:
    """Make all folders between ``root`` and ``path`` and their names durable, but those ``known``.

    ``root`` itself is never made: ``FileNotFoundError`` if it has gone. What is done is added to
    ``known``. A folder that exists has its name synced too, because whoever made it may have died
    before doing that.
    """
    above = root
    for name in filter(None, path[len(root) :].split("/")):
        folder = f"{above}/{name}"
        if folder not in known:
            files.mkdir(folder)
            files.sync_dir(above)
            known.add(folder)
        above = folder


def replace(files: Files, path: str, data: Buffer, *, token: str) -> None:
    """Atomically put ``data`` at ``path``, durable on return. ``token`` is for the temporary."""
    temp = f"{path}{TEMP_MARK}{token}"
    _write_new(files, temp, [data])
    try:
        files.rename(temp, path)
    except BaseException:
        files.unlink(temp)
        raise
    files.sync_dir(parent(path))


def sweep(files: Files, folder: str) -> None:
    """Remove what killed calls of ``replace`` left in ``folder``; the caller has it locked."""
    for name in files.listdir(folder):
        if TEMP_MARK in name:
            files.unlink(f"{folder}/{name}")


def create(files: Files, path: str, parts: Sequence[Buffer], *, temp_dir: str, token: str) -> bool:
    """Durably create ``path`` unless it exists; False if it does. Readers never see a part of it.

    ``temp_dir`` must be on the same file system. ``NoHardLinks`` if that cannot link.
    """
    temp = f"{temp_dir}/{TEMP_MARK}{token}"
    _write_new(files, temp, parts)
    try:
        created = files.link(temp, path)
    except OSError as error:
        if error.errno in _LINK_REFUSED:
            raise NoHardLinks(error.errno, error.strerror, path) from error
        raise
    finally:
        files.unlink(temp)
    # Also after a lost race: the winner may have died before its own directory fsync.
    files.sync_dir(parent(path))
    return created


def remove(files: Files, path: str) -> bool:
    """Durably remove a file; False if it was not there."""
    removed = files.unlink(path)
    # Also if it was not there: an earlier attempt may have failed before its directory fsync.
    files.sync_dir(parent(path))
    return removed


def finish(files: Files, file: OpenFile, temp: str, path: str) -> bool:
    """Give a fully written ``temp`` its final name, durably; False if ``path`` exists already.

    Where the file system cannot link, looking and renaming are two steps.
    """
    file.fsync()
    try:
        if not files.link(temp, path):
            return False
    except OSError as error:
        if error.errno not in _LINK_REFUSED:
            raise
        if files.stat(path) is not None:
            return False
        files.rename(temp, path)
    files.unlink(temp)
    files.sync_dir(parent(path))
    return True


def _write_new(files: Files, temp: str, parts: Sequence[Buffer]) -> None:
    size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    large = size >= _LARGE
    file = files.open_write(temp, new=True, direct=large)
    try:
        try:
            file.append(parts)
            if large:
                file.truncate(size)  # padding may follow
            file.fsync()
        finally:
            file.close()  # network file systems report a full disk here
    except BaseException:
        files.unlink(temp)
        raise
