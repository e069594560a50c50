"""Addresses of second sites: ``site://HOST:PORT/VAULT?ca=…&cert=…&key=…&timeout=…``.

One string says all that is needed, so that every command that takes a vault's URL works on a bare
machine. It holds no secret: the certificate and its key are files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.store.address import BadAddress, parse, resolved, site_seconds
from stages.store.site.protocol import PORT

TIMEOUT = 30.0  # seconds without progress that are taken for an answer that never comes
FORM = "site://HOST:PORT/VAULT"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")
_VAULT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Site:
    """``host`` without brackets; paths "" where they were not said; ``timeout`` in seconds."""

    host: str
    port: int
    vault: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    timeout: float = TIMEOUT

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Without options: for people."""
        return f"site://{self.authority}/{self.vault}"


def parse_site(url: str, base: str = ".") -> Site:
    """Take a URL apart; relative paths start from ``base``. Raises ``BadAddress``."""
    address = parse(url)
    authority, _, vault = address.place.partition("/")
    if address.scheme != "site" or "@" in authority or "#" in url or not url.isprintable():
        raise BadAddress("is not the address of a site", f"write {FORM}")
    host, port = _authority(authority)
    if _VAULT.fullmatch(vault) is None:
        shown = f'"{vault[:80]}" is not the name of a vault' if vault else "names no vault"
        raise BadAddress(shown, f"write {FORM}, with a name of the site's configuration")
    said = address.options
    return Site(
        host,
        port,
        vault,
        ca=resolved(said.get("ca", ""), base),
        cert=resolved(said.get("cert", ""), base),
        key=resolved(said.get("key", ""), base),
        timeout=site_seconds(said["timeout"]) if "timeout" in said else TIMEOUT,
    )


def _authority(text: str) -> tuple[str, int]:
    host, port = text, str(PORT)
    if not text.endswith("]") and ":" in text:
        host, _, port = text.rpartition(":")
    if _HOST.fullmatch(host) is None:
        shown = f'"{host[:80]}" is not the name of a host' if host else "names no host"
        raise BadAddress(shown, f"write {FORM}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise BadAddress(f'a port is a number from 1 to 65535, not "{port[:20]}"', f"write {FORM}")
    return host.strip("[]"), int(port)
