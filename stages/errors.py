"""The whole error tree: what failed, on what, what to do about it, whether it heals by itself.

Every class says in one place whether the supervisor may retry it (``recoverable``) and with which
code the process exits (``exit_code``). ``EXIT_CODES`` is the documented table; a test walks the
tree and fails on a class that is not in it.
"""

from __future__ import annotations

import errno
from typing import ClassVar

EXIT_CODES: dict[int, str] = {
    0: "success",
    1: "unexpected failure: a defect in Backstay, please report it",
    2: "the command line is wrong",
    3: "the configuration is wrong",
    4: "wrong passphrase, wrong key, or a trust pin that does not match",
    5: "not a vault, another vault, or a vault of another version",
    6: "damaged or missing data in the vault",
    7: "a protected disk is missing, shrunk, busy or failing",
    8: "the vault cannot be reached now",
    9: "no space left",
    10: "fenced: another writer has taken over",
    11: "not possible in this state",
    12: "the target of a recovery is in use or exists already",
    13: "no such machine, point or disk",
    14: "already running, or its state folder is damaged",
    15: "a program or package this command needs is missing",
    130: "interrupted",
}
FORBIDDEN = (errno.EACCES, errno.EPERM)  # what it says to a user who may not
FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says where there is no room: ``NoSpace``


class BackstayError(Exception):
    """Base of all errors a user may see.

    ``operation`` is what was being done, ``subject`` the file, object, disk or machine it was done
    to, ``hint`` the next thing a person can do.
    """

    recoverable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, operation: str = "", subject: str = "", hint: str = ""):
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.subject = subject
        self.hint = hint

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.operation, self.subject) if part)
        return f"{where}: {self.message}" if where else self.message


class UsageError(BackstayError):
    """The command line cannot be carried out as given."""

    exit_code = 2


class ConfigError(BackstayError):
    """The configuration is wrong; the message carries file:line:column."""

    exit_code = 3


class KeyFailure(BackstayError):
    """A key or passphrase does not open or sign what it should."""

    exit_code = 4


class WrongPassphrase(KeyFailure):
    """The passphrase does not open the key file, or the key file was altered."""


class WrongKey(KeyFailure):
    """The private key is not one of the vault's recipients, or not its operator's."""


class TrustMismatch(KeyFailure):
    """The vault says something else than what is pinned in the config or the key file."""


class NotAdmitted(KeyFailure):
    """This daemon's signing key is not among the vault's admitted writers."""


class VaultError(BackstayError):
    """The vault as such cannot be used."""

    exit_code = 5


class NotAVault(VaultError):
    """The place holds no vault, or something else."""


class UnknownVersion(VaultError):
    """Written by a newer Backstay: readers reject what they do not know."""


class Damage(BackstayError):
    """Objects in the vault are missing or do not verify."""

    exit_code = 6


class DamagedObject(Damage):
    """One object does not verify; ``subject`` is its key."""


class BrokenChain(Damage):
    """The log has a hole or a commit that does not follow its predecessor."""


class MissingData(Damage):
    """An object that a commit names is not in the vault."""


class SourceError(BackstayError):
    """A protected disk cannot be read as it should."""

    exit_code = 7


class SourceMissing(SourceError):
    """The disk's path does not exist or is no file or block device."""


class SourceShrunk(SourceError):
    """The disk is smaller than the vault knows it."""


class SourceBusy(SourceError):
    """The disk is in use, or changed while it was read at rest."""


class SourceIO(SourceError):
    """The disk answered a read or write with an error."""


class StoreError(BackstayError):
    """The object store did not do what it was asked."""

    exit_code = 8


class StoreUnreachable(StoreError):
    """Network or server trouble: retried."""

    recoverable = True


class OutcomeUnknown(StoreUnreachable):
    """A put ended without an answer: it may or may not be stored (R11)."""


class StoreDenied(StoreError):
    """The store refuses these credentials."""

    exit_code = 4


class ObjectMissing(StoreError):
    """A get of a key that is not there; readers turn it into Damage where it matters."""

    exit_code = 6


class NoSpace(BackstayError):
    """A disk that Backstay writes to is full: retried, because a person can make room."""

    recoverable = True
    exit_code = 9


class OutOfMemory(BackstayError):
    """An allocation failed: retried."""

    recoverable = True
    exit_code = 9


class Fenced(BackstayError):
    """Another writer owns the log; a person must decide (R12, R13)."""

    exit_code = 10


class IllegalOperation(BackstayError):
    """The operation is not allowed in the present state; the message names both."""

    exit_code = 11


class TargetError(BackstayError):
    """What a recovery would write to exists or is in use."""

    exit_code = 12


class NotFound(BackstayError):
    """No such machine, point, disk or job."""

    exit_code = 13


class Expired(NotFound):
    """Retention has let this point go."""


class Deleted(Expired):
    """All of this machine's data was deleted from the vault on purpose."""


class StateError(BackstayError):
    """The local state folder is locked or damaged."""

    exit_code = 14


class StateLocked(StateError):
    """Another Backstay process holds this state folder."""


class StateDamaged(StateError):
    """A file in the state folder does not verify."""


class MissingTool(BackstayError):
    """A program that this command needs is not installed."""

    exit_code = 15


class WorkerLost(BackstayError):
    """A helper process of Backstay ended unexpectedly: retried."""

    recoverable = True
    exit_code = 8


class ProtocolError(BackstayError):
    """A peer broke a wire protocol; its connection ends, the daemon does not."""

    exit_code = 8


# What reading an object of a vault raises when it is not as it should be, for whatever reason.
UNREADABLE = (Damage, NotAdmitted, UnknownVersion)


def leaves(error: BaseException) -> list[BaseException]:
    """Flatten exception groups into their leaves, in order."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]
