"""What every error means for a machine: tried again on the ladder, or Critical at once. One table.

Recoverable: the network, too little room, too little memory, a helper that ended. Everything else
needs a person: the machine is Critical, nothing is tried again by itself, and intake goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from stages import errors
from stages.errors import BackstayError


class Cause(StrEnum):
    """Why delivery of a machine does not go on."""

    NETWORK = "network"
    SPACE = "low disk space"
    MEMORY = "low memory"
    HELPER = "helper process ended"
    AUTHENTICATION = "authentication"
    AUTHORISATION = "authorisation"
    INVALID_REPLICA = "replica in an invalid state"
    BROKEN_CHAIN = "broken chain"
    FENCED = "fenced"
    NOT_FOUND = "machine not found"
    SOURCE = "source disk"
    STATE = "state folder"
    SETTINGS = "settings"
    DEFECT = "defect"

    @property
    def recoverable(self) -> bool:
        """Tried again on the ladder."""
        return self in _RECOVERABLE


_RECOVERABLE = frozenset({Cause.NETWORK, Cause.SPACE, Cause.MEMORY, Cause.HELPER})

_HINTS: Mapping[Cause, str] = MappingProxyType(
    {
        Cause.NETWORK: "it is tried again by itself; 'backstay retry' tries now",
        Cause.SPACE: "make room; it is tried again by itself",
        Cause.MEMORY: "free memory; it is tried again by itself",
        Cause.HELPER: "it is tried again by itself",
        Cause.AUTHENTICATION: "put the right key or credentials in place, then send SIGHUP",
        Cause.AUTHORISATION: "give it the permission, then send SIGHUP or 'backstay retry'",
        Cause.INVALID_REPLICA: "look with 'backstay vault check', then 'backstay retry'",
        Cause.BROKEN_CHAIN: "look with 'backstay verify'; nothing more is added to this log",
        Cause.FENCED: "another writer has taken over: a person must decide which one is right",
        Cause.NOT_FOUND: "is it in the configuration? Then send SIGHUP",
        Cause.SOURCE: "look at the disk, then 'backstay retry'",
        Cause.STATE: "look at the state folder, then 'backstay retry'",
        Cause.SETTINGS: "put the configuration right, then send SIGHUP",
        Cause.DEFECT: "please report it; 'backstay retry' tries again",
    }
)

VERDICTS: Mapping[type[BackstayError], Cause] = MappingProxyType(
    {
        errors.BackstayError: Cause.DEFECT,
        errors.UsageError: Cause.SETTINGS,
        errors.ConfigError: Cause.SETTINGS,
        errors.KeyFailure: Cause.AUTHENTICATION,
        errors.WrongPassphrase: Cause.AUTHENTICATION,
        errors.WrongKey: Cause.AUTHENTICATION,
        errors.TrustMismatch: Cause.AUTHENTICATION,
        errors.NotAdmitted: Cause.AUTHORISATION,
        errors.VaultError: Cause.INVALID_REPLICA,
        errors.NotAVault: Cause.INVALID_REPLICA,
        errors.UnknownVersion: Cause.INVALID_REPLICA,
        errors.Damage: Cause.INVALID_REPLICA,
        errors.DamagedObject: Cause.INVALID_REPLICA,
        errors.BrokenChain: Cause.BROKEN_CHAIN,
        errors.MissingData: Cause.INVALID_REPLICA,
        errors.SourceError: Cause.SOURCE,
        errors.SourceMissing: Cause.SOURCE,
        errors.SourceShrunk: Cause.SOURCE,
        errors.SourceBusy: Cause.SOURCE,
        errors.SourceIO: Cause.SOURCE,
        errors.StoreError: Cause.INVALID_REPLICA,
        errors.StoreUnreachable: Cause.NETWORK,
        errors.OutcomeUnknown: Cause.NETWORK,
        errors.StoreDenied: Cause.AUTHORISATION,
        errors.ObjectMissing: Cause.INVALID_REPLICA,
        errors.NoSpace: Cause.SPACE,
        errors.OutOfMemory: Cause.MEMORY,
        errors.Fenced: Cause.FENCED,
        errors.IllegalOperation: Cause.SETTINGS,
        errors.TargetError: Cause.SETTINGS,
        errors.NotFound: Cause.NOT_FOUND,
        errors.Expired: Cause.NOT_FOUND,
        errors.Deleted: Cause.NOT_FOUND,
        errors.StateError: Cause.STATE,
        errors.StateLocked: Cause.STATE,
        errors.StateDamaged: Cause.STATE,
        errors.MissingTool: Cause.SETTINGS,
        errors.WorkerLost: Cause.HELPER,
        errors.ProtocolError: Cause.DEFECT,
    }
)


def cause_of(error: BackstayError) -> Cause:
    """Why, by the class; an error of another module counts as what it is derived from, but it says
    itself whether it is recoverable."""
    kind = next(kind for kind in type(error).__mro__ if kind in VERDICTS)
    cause = VERDICTS[kind]
    if type(error) is not kind and error.recoverable != cause.recoverable:
        return Cause.HELPER if error.recoverable else Cause.DEFECT
    return cause


def hint_of(error: BackstayError) -> str:
    """What a person can do: the error's own hint, or that of its cause."""
    return error.hint or _HINTS[cause_of(error)]
