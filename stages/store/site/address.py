"""Addresses of second sites: ``site://HOST:PORT/VAULT?ca=…&cert=…&key=…&timeout=…``.

One string says all that is needed, so that every command that takes a vault's URL works on a bare
machine. It holds no secret: the certificate and its key are files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from stages.store.site.protocol import PORT

OPTIONS = ("ca", "cert", "key", "timeout")
TIMEOUT = 30.0  # seconds without progress that are taken for an answer that never comes
TIMEOUTS = (1.0, 600.0)
MAX_URL = 2000  # characters
FORM = "site://HOST:PORT/VAULT"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")
_VAULT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SECONDS = re.compile(r"([0-9]{1,6})(ms|s|m)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}


class BadSite(ValueError):
    """``message`` says what is wrong, ``hint`` what to write; ``option`` is the one it is about."""

    def __init__(self, message: str, hint: str = "", option: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.option = option


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
    """Take a URL apart; relative paths start from ``base``. Raises ``BadSite``."""
    if len(url) > MAX_URL or not url.isprintable():
        raise BadSite("is not the address of a site", f"write {FORM}")
    scheme, _, rest = url.partition("://")
    place, asked, query = rest.partition("?")
    authority, _, vault = place.partition("/")
    if scheme != "site" or "@" in authority or "#" in url:
        raise BadSite("is not the address of a site", f"write {FORM}")
    host, port = _authority(authority)
    if _VAULT.fullmatch(vault) is None:
        shown = f'"{vault[:80]}" is not the name of a vault' if vault else "names no vault"
        raise BadSite(shown, f"write {FORM}, with a name of the site's configuration")
    said = _options(query, asked=bool(asked))
    return Site(
        host,
        port,
        vault,
        ca=_path(said.get("ca", ""), base),
        cert=_path(said.get("cert", ""), base),
        key=_path(said.get("key", ""), base),
        timeout=_seconds(said["timeout"]) if "timeout" in said else TIMEOUT,
    )


def with_options(url: str, options: Mapping[str, str]) -> str:
    """``url`` with those options added that it does not have itself. Nothing is checked."""
    place, _, query = url.partition("?")
    found = {name: value for name, value in options.items() if value}
    found |= dict(parse_qsl(query, keep_blank_values=True))
    if not found:
        return url
    ordered = {name: found[name] for name in [*OPTIONS, *sorted(found)] if name in found}
    return f"{place}?{urlencode(ordered, quote_via=quote, safe='/:')}"


def check_option(name: str, value: str) -> None:
    """Raise ``BadSite`` unless a site has this option and it may have this value."""
    if name not in OPTIONS:
        known = ", ".join(OPTIONS)
        raise BadSite(f'"{name[:40]}" does not go with site://', f"known: {known}", name)
    if name == "timeout":
        _seconds(value)
    elif not value:
        raise BadSite("is not the path of a file", "", name)


def _authority(text: str) -> tuple[str, int]:
    host, port = text, str(PORT)
    if not text.endswith("]") and ":" in text:
        host, _, port = text.rpartition(":")
    if _HOST.fullmatch(host) is None:
        shown = f'"{host[:80]}" is not the name of a host' if host else "names no host"
        raise BadSite(shown, f"write {FORM}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise BadSite(f'a port is a number from 1 to 65535, not "{port[:20]}"', f"write {FORM}")
    return host.strip("[]"), int(port)


def _options(query: str, *, asked: bool) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=asked)
    except ValueError:
        raise BadSite("options are written ?key=value&key=value") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadSite(f'"{name[:40]}" is given twice', "", name)
        check_option(name, value)
        found[name] = value
    return found


def _seconds(text: str) -> float:
    match = _SECONDS.fullmatch(text)
    found = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not TIMEOUTS[0] <= found <= TIMEOUTS[1]:
        raise BadSite(f'"{text[:40]}" is not from 1s to 10m', "for example 30s", "timeout")
    return found


def _path(path: str, base: str) -> str:
    if not path or path.startswith("/"):
        return path
    return f"{base.rstrip('/') or '/'}/{path.removeprefix('./')}"
