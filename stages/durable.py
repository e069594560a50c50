"""Atomic replace and durable creation: the only place that renames and links.

A crash at any instruction leaves either the old file or the new one, never a part. The sequence is
write to a temporary name, fsync, link or rename, fsync of the directory.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.ports import Buffer, Files, OpenFile

TEMP_MARK = ".tmp-"


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


def replace(files: Files, path: str, data: Buffer, *, token: str) -> None:
    """Atomically put ``data`` at ``path``, durable on return. ``token`` is for the temporary."""
    temp = f"{path}{TEMP_MARK}{token}"
    _write_new(files, temp, [data])
    try:
        files.rename(temp, path)
    except OSError:
        files.unlink(temp)
        raise
    files.sync_dir(parent(path))


def create(files: Files, path: str, parts: Sequence[Buffer], *, temp_dir: str, token: str) -> bool:
    """Durably create ``path`` unless it exists; False if it does. Readers never see a part of it.

    ``temp_dir`` must be on the same file system.
    """
    temp = f"{temp_dir}/{TEMP_MARK}{token}"
    _write_new(files, temp, parts)
    try:
        created = files.link(temp, path)
    finally:
        files.unlink(temp)
    # Also after a lost race: the winner may have died before its own directory fsync.
    files.sync_dir(parent(path))
    return created


def finish(files: Files, file: OpenFile, temp: str, path: str) -> bool:
    """Give a fully written ``temp`` its final name, durably; False if ``path`` exists already."""
    file.fsync()
    if not files.link(temp, path):
        return False
    files.unlink(temp)
    files.sync_dir(parent(path))
    return True


def _write_new(files: Files, temp: str, parts: Sequence[Buffer]) -> None:
    file = files.open_write(temp, new=True)
    try:
        file.append(parts)
        file.fsync()
    except OSError:
        files.unlink(temp)
        raise
    finally:
        file.close()
