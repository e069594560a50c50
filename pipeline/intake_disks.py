"""Disks as intake is told of them, and what it takes to capture them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.capture.examiner import Examiners, InlineExaminers
from stages.capture.pool import ProcessExaminers
from stages.errors import BackstayError
from stages.ports import Machine

GIB = 1 << 30
_LARGE = GIB  # disks with more content are scanned with helper processes


@dataclass(frozen=True, slots=True)
class IntakeDisk:
    """A disk to capture; ``listen`` is an address of ``stages.nbd.listening``. ``vouched``: nobody
    has written to it since the last stop, says the operator."""

    name: str
    path: str
    listen: str
    vouched: bool = False


def examiners_for(machine: Machine, disks: Sequence[IntakeDisk]) -> Examiners:
    """Hashing holds the interpreter lock, which guests wait for: large disks get a process."""
    allocated = 0
    for disk in disks:
        try:
            stat = machine.files.stat(disk.path)
        except OSError:
            continue
        if stat is not None:
            allocated += stat.size if stat.is_block else stat.allocated
    if allocated < _LARGE:
        return InlineExaminers(machine.offload, batch=4 << 20, slots=2)
    return ProcessExaminers(1, batch=4 << 20)


def journal_limit(machine: Machine, folder: str, disks: Sequence[IntakeDisk]) -> int:
    """Bytes of journal in ``folder``, for ``auto``: half of the disks and at least 16 GiB, but at
    most 70% of what is free there; never less than 64 MiB. Blocks. Raises ``BackstayError`` for a
    disk that cannot be looked at, ``OSError``."""
    sizes = 0
    for disk in disks:
        try:
            stat = machine.files.stat(disk.path)
        except OSError as error:
            raise BackstayError(error.strerror or str(error), subject=disk.path) from error
        sizes += stat.size if stat is not None else 0
    free = machine.files.free_bytes(folder)
    return max(64 << 20, min(max(16 * GIB, sizes // 2), free * 7 // 10))
