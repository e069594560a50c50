"""What an ``OSError`` of a file system means to a store: full, refused, impossible, or trouble."""

from __future__ import annotations

import errno

from stages.durable import NoHardLinks
from stages.errors import (
    FULL,
    BackstayError,
    NoSpace,
    OutOfMemory,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Retrying changes nothing: the file system, or what lies there, is of the wrong kind.
_IMPOSSIBLE = (
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EEXIST,
)


def explain(error: OSError, operation: str, subject: str, root: str) -> BackstayError:
    """Return the store error for ``error``; what is not in a table is taken for trouble."""
    kind, hint = _classify(error, root)
    reason = error.strerror or str(error) or type(error).__name__
    place = f" ({error.filename})" if error.filename else ""
    return kind(f"{reason}{place}", operation=operation, subject=subject, hint=hint)


def _classify(error: OSError, root: str) -> tuple[type[BackstayError], str]:
    if isinstance(error, NoHardLinks):
        return StoreError, (
            "objects are created by hard links: put the store on ext4, XFS, Btrfs, ZFS or NFS, "
            "not on FAT or exFAT"
        )
    if error.errno in FULL:
        return NoSpace, f"make room on the file system (or raise the quota) of {root}"
    if error.errno in _REFUSED:
        return StoreDenied, f"check owner, mode and mount options of {root}"
    if error.errno == errno.ENOMEM:
        return OutOfMemory, "free memory on this machine"
    if error.errno == errno.ENOENT:
        return StoreUnreachable, (
            f"mount or create {root}; if it is a copy of a store, make the folder .tmp in it"
        )
    if error.errno in _IMPOSSIBLE:
        return StoreError, f"use a directory on a local file system or NFS, not {root}"
    return StoreUnreachable, f"check the disk or the mount of {root} and the system log"
