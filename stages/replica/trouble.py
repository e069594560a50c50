"""What can be in a replica's way, said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stages.errors import FULL, BackstayError, IllegalOperation, NoSpace, StateLocked, TargetError
from stages.replica.record import Record, Status


@contextmanager
def translated(folder: str) -> Iterator[None]:
    """What the file system refuses inside becomes one of our errors."""
    try:
        yield
    except OSError as error:
        raise failed(folder, error) from None


def failed(folder: str, error: OSError) -> BackstayError:
    """Our error for one of the file system."""
    subject = str(error.filename or folder)
    if error.errno in FULL:
        return NoSpace(
            "no space left for the replica",
            operation="follow",
            subject=subject,
            hint="make room: it goes on by itself",
        )
    return TargetError(
        error.strerror or str(error),
        operation="follow",
        subject=subject,
        hint="the folder must be writable; disks are given within one file system",
    )


def busy(folder: str) -> StateLocked:
    """Its lock is held."""
    return StateLocked(
        "another process works on this replica",
        operation="open replica",
        subject=folder,
        hint="wait until it has come to its point, or stop 'backstay site'",
    )


def given(found: Record) -> IllegalOperation:
    """It has no files any more, or not all of them."""
    going_on = f"'backstay site replica promote' with --to {found.to} again finishes that"
    forgotten = "'backstay site replica drop' forgets that, and a new one is begun"
    return IllegalOperation(
        f"its disks were given to {found.to}",
        operation="replica",
        subject=found.machine,
        hint=going_on if found.status is Status.GIVING else forgotten,
    )


def not_whole(folder: str) -> IllegalOperation:
    """Its files are of no known moment."""
    return IllegalOperation(
        "the replica is no recovery point now: it is on its way from one to another",
        operation="replica",
        subject=folder,
        hint="let it come to its point first",
    )


def exists(path: str) -> TargetError:
    """Something would be overwritten."""
    return TargetError(
        "exists already",
        operation="give replica",
        subject=path,
        hint="nothing is overwritten: give another folder, or move it away",
    )
