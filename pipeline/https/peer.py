"""Who is at the other end of a connection."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Peer:
    """``uid`` for a Unix socket; ``name`` is the common name and ``fingerprint`` the SHA-256 (hex)
    of a certificate that was verified, "" without one."""

    address: str
    uid: int | None = None
    name: str = ""
    fingerprint: str = ""


PEER: ContextVar[Peer] = ContextVar("backstay_peer")
NOBODY = Peer("nowhere")


def common_name(certificate: Any) -> str:
    """Of a verified certificate, as the ssl module gives it; "" if there is none."""
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""


def fingerprint(certificate: bytes | None) -> str:
    """Of a certificate's DER form: what ``openssl x509 -fingerprint -sha256`` says, in lower case
    and without colons."""
    return hashlib.sha256(certificate).hexdigest() if certificate else ""
