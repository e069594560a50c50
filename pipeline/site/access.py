"""Who may do what at a site: by the certificate that a client showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.https.peer import Peer
from pipeline.site.config import ROLES, Client


@dataclass(frozen=True, slots=True)
class Known:
    """A client of the configuration."""

    name: str
    role: str
    vaults: frozenset[str]

    def may(self, needed: str) -> bool:
        """It may do what ``needed`` may."""
        return ROLES.index(self.role) >= ROLES.index(needed)


def who(clients: Mapping[str, Client], peer: Peer) -> Known | None:
    """The client behind a certificate that was verified; None if nobody knows it.

    An entry that gives the very certificate goes before one that gives a name.
    """
    found = None
    for name, client in clients.items():
        if client.name is not None and client.name != peer.name:
            continue
        if client.fingerprint is not None and client.fingerprint != peer.fingerprint:
            continue
        if found is None or client.fingerprint is not None:
            found = Known(name, client.role, frozenset(client.vaults))
        if client.fingerprint is not None:
            break
    return found
