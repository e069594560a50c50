"""In whose hands a machine's state is: a daemon's, or a command's that exchanges its record.

Intake and delivery each hold a locked file for as long as they have to do with a machine, and who
exchanges its record of a vault holds both: never two at a time. The kernel lets go of a lock when
its process ends, however that ends; an exchange that was cut short is finished by whoever looks
next and finds both free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum

from pipeline.state import StateFolder
from stages.errors import StateLocked
from stages.ports import Files, OpenFile
from stages.ship.trouble import in_words

FOLDER = "hands"


class Hand(StrEnum):
    """Who may have a machine."""

    INTAKE = "intake"
    DELIVERY = "delivery"


_DOES = {Hand.INTAKE: "captures", Hand.DELIVERY: "ships"}


class Held:
    """Locks that are held until ``close``."""

    def __init__(self) -> None:
        self._files: list[OpenFile] = []

    def add(self, file: OpenFile) -> None:
        """One more."""
        self._files.append(file)

    def close(self) -> None:
        """Let go. Again it does nothing."""
        files, self._files = self._files, []
        for file in files:
            with suppress(OSError):  # closing unlocks, whatever it returns
                file.close()


def take(
    files: Files, state: StateFolder, machine: str, hands: Sequence[Hand] = tuple(Hand)
) -> Held:
    """Hold a machine. Waits for no one: ``StateLocked`` if somebody has it. ``StateError``."""
    folder = f"{state.path}/{FOLDER}"
    held = Held()
    try:
        with in_words("open state", folder):
            if files.stat(folder) is None:
                files.mkdir(folder)
            for hand in hands:
                file = files.open_write(f"{folder}/{machine}.{hand.value}", create=True)
                held.add(file)
                _lock(file, state, machine, hand)
    except BaseException:
        held.close()
        raise
    return held


@contextmanager
def holding(
    files: Files, state: StateFolder, machine: str, hands: Sequence[Hand] = tuple(Hand)
) -> Iterator[None]:
    """``take`` for as long as this lasts."""
    held = take(files, state, machine, hands)
    try:
        yield
    finally:
        held.close()


def settled(files: Files, state: StateFolder, machine: str) -> bool:
    """Its record is the one in force: an exchange that was cut short is finished. False while one
    is under way. Raises ``StateError``, ``NoSpace``."""
    if state.exchange(machine) is None:
        return True
    try:
        held = take(files, state, machine)
    except StateLocked:
        return False
    try:
        state.finish_exchange(machine)
    finally:
        held.close()
    return True


def _lock(file: OpenFile, state: StateFolder, machine: str, hand: Hand) -> None:
    if file.lock():
        return
    raise StateLocked(
        f"is in use: a daemon {_DOES[hand]} it, or another command has it",
        operation="take machine",
        subject=f"{machine} in {state.path}",
        hint="a daemon lets go of a machine whose failover is committed as soon as no client is "
        "connected to its disks ('backstay status' shows it); else take it out of the "
        "configuration and send SIGHUP, or stop the daemon",
    )
