"""Who may do what: the owner of the Unix socket, holders of tokens and of certificates.

The access file is one line for each: ``NAME ROLE token:TOKEN``, ``NAME ROLE blake3:HEX`` (the
digest of a token, so that the file is no secret by itself), or ``NAME ROLE cert:COMMON-NAME``.
``#`` begins a comment. Roles: viewer, operator, approver; each may do what those before it may.
"""

from __future__ import annotations

import hmac
import logging
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.control.model import Caller
from pipeline.https.peer import Peer
from stages.crypto.digest import digest
from stages.errors import ConfigError

ROLES = ("viewer", "operator", "approver")
MIN_TOKEN = 20  # characters
_MAX_FILE = 1 << 20
_LOG = logging.getLogger("backstay.api")
_BEARER = "bearer "


def outranks(role: str, needed: str) -> bool:
    """``role`` may do what ``needed`` may."""
    return ROLES.index(role) >= ROLES.index(needed)


@dataclass(frozen=True, slots=True)
class Access:
    """What an access file says: digests of tokens and common names to (name, role)."""

    tokens: Sequence[tuple[bytes, str, str]] = field(default=(), repr=False)
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def caller(self, peer: Peer, authorization: str) -> Caller | None:
        """Who is there; None if nobody known."""
        if peer.uid is not None:
            return Caller(_user(peer.uid), ROLES[-1], peer.address)
        if authorization:
            return self._bearer(authorization, peer)
        if peer.name in self.names:
            name, role = self.names[peer.name]
            return Caller(name, role, peer.address)
        return None

    def _bearer(self, authorization: str, peer: Peer) -> Caller | None:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            return None
        given = token_digest(authorization[len(_BEARER) :].strip())
        found = None
        for known, name, role in self.tokens:  # all of them, however early one is found
            if hmac.compare_digest(known, given):
                found = Caller(name, role, peer.address)
        return found


def token_digest(token: str) -> bytes:
    """What is compared, and may stand in an access file, in place of a token."""
    return digest([b"backstay token 1\n", token.encode("utf-8", "replace")])


def load_access(path: str) -> Access:
    """Read an access file. ``ConfigError`` names the line, never what is secret in it."""
    place = Path(path)
    try:
        mode = place.stat().st_mode
        data = place.read_bytes() if place.stat().st_size <= _MAX_FILE else None
    except OSError as error:
        raise _wrong(path, error.strerror or "cannot be read", "") from error
    if mode & 0o077:
        raise _wrong(path, "others can read or write it", f"chmod 600 {path}")
    try:
        text = (data or b"\xff").decode()
    except UnicodeDecodeError as error:
        raise _wrong(path, "is no text of less than 1 MiB", "") from error
    tokens: list[tuple[bytes, str, str]] = []
    names: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split(maxsplit=2)
        if words:
            _take(f"{path}:{number}", words, tokens, names)
    return Access(tuple(tokens), names)


class AccessFile:
    """An access file that may be changed while it is used: what is revoked is revoked at once.

    A changed file that is wrong changes nothing, and is complained of once. ``ConfigError`` if it
    is wrong at the beginning.
    """

    def __init__(self, path: str):
        self._path = path
        self._seen = self._stamp()
        self._access = load_access(path)

    def caller(self, peer: Peer, authorization: str) -> Caller | None:
        """See ``Access``."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._access = load_access(self._path)
            except ConfigError as error:
                _LOG.warning("%s: what it was before stays in force", error.message)
        return self._access.caller(peer, authorization)

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = Path(self._path).stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _take(
    where: str,
    words: list[str],
    tokens: list[tuple[bytes, str, str]],
    names: dict[str, tuple[str, str]],
) -> None:
    if len(words) != 3 or words[1] not in ROLES:
        raise _wrong(where, "is not NAME ROLE CREDENTIAL", f"ROLE is one of {', '.join(ROLES)}")
    name, role, (kind, _, rest) = words[0], words[1], words[2].strip().partition(":")
    if kind == "token" and len(rest) >= MIN_TOKEN and not rest.count(" "):
        tokens.append((token_digest(rest), name, role))
    elif kind == "blake3" and len(rest) == 64 and set(rest) <= set("0123456789abcdef"):
        tokens.append((bytes.fromhex(rest), name, role))
    elif kind == "cert" and rest and rest not in names:
        names[rest] = (name, role)
    else:
        raise _wrong(
            where,
            "has a credential that is none",
            f"token:… of at least {MIN_TOKEN} characters, blake3:… of 64 hex digits, or "
            "cert:COMMON-NAME, each name once",
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _wrong(where: str, message: str, hint: str) -> ConfigError:
    return ConfigError(f"{where}: {message}", operation="read access", subject=where, hint=hint)
