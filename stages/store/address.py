"""Addresses of stores behind a network: ``SCHEME://PLACE?KEY=VALUE&…``.

One string says all that is needed to reach a store, so that every command that takes a vault's URL
works on a bare machine. No option is a secret: credentials are a file or the environment.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

MAX_URL = 2000  # characters
TIMEOUTS = (0.1, 600.0)  # seconds

_SECONDS = re.compile(r"([0-9]{1,6})(ms|s|m)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")


class BadAddress(ValueError):
    """``message`` says what is wrong, ``hint`` what to write; ``option`` is the one it is about."""

    def __init__(self, message: str, hint: str = "", option: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.option = option


@dataclass(frozen=True, slots=True)
class Address:
    """``place`` is what stands between ``://`` and ``?``; ``options`` are checked."""

    scheme: str
    place: str
    options: Mapping[str, str]


def seconds(text: str) -> float:
    """``30``, ``30s``, ``500ms`` or ``2m`` in seconds. Raises ``BadAddress``."""
    match = _SECONDS.fullmatch(text)
    found = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not TIMEOUTS[0] <= found <= TIMEOUTS[1]:
        raise BadAddress(f'"{text[:40]}" is not from 100ms to 10m', "for example 30s")
    return found


def site_seconds(text: str) -> float:
    """The same for a second site, which answers a put when it has fsynced: at least 1 s.

    Raises ``BadAddress``.
    """
    try:
        found = seconds(text)
    except BadAddress:
        found = 0.0
    if found < 1:
        raise BadAddress(f'"{text[:40]}" is not from 1s to 10m', "for example 30s")
    return found


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and the loopback's numbers."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _server(text: str) -> None:
    """An http or https URL of a server, without user, query or fragment."""
    try:
        found = urlsplit(text)
        host, _ = found.hostname or "", found.port
    except ValueError:
        raise BadAddress("is not the address of a server", "write https://HOST:PORT") from None
    if "@" in found.netloc:
        raise BadAddress(
            "an address with a password in it", "a proxy's stands in the variable HTTPS_PROXY"
        )
    bare = host if ":" not in host else f"[{host}]"
    good = found.scheme in ("http", "https") and _HOST.fullmatch(bare)
    if not good or found.query or found.fragment or not text.isprintable():
        raise BadAddress(f'"{text[:60]}" is not the address of a server', "write https://HOST:PORT")


def _region(text: str) -> None:
    if _REGION.fullmatch(text) is None:
        raise BadAddress(f'"{text[:40]}" is not a region', "for example eu-central-1")


def _account(text: str) -> None:
    if _ACCOUNT.fullmatch(text) is None:
        raise BadAddress(
            f'"{text[:40]}" is not a storage account', "3 to 24 of a-z and 0-9, as in the portal"
        )


def _file(text: str) -> None:
    if not text or not text.isprintable():
        raise BadAddress("is not the path of a file")


def _switch(text: str) -> None:
    if text not in ("true", "false"):
        raise BadAddress(f'must be true or false, not "{text[:40]}"')


_CHECKS: Mapping[str, Callable[[str], object]] = {
    "endpoint": _server,
    "region": _region,
    "account": _account,
    "ca": _file,
    "cert": _file,
    "key": _file,
    "proxy": _server,
    "credentials": _file,
    "timeout": seconds,
    "plain_http": _switch,
}
CLOUDS = ("s3", "az", "gs")  # where every put costs money
# In the order in which they are written.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "s3": ("endpoint", "region", "ca", "proxy", "credentials", "timeout", "plain_http"),
    "az": ("account", "endpoint", "ca", "proxy", "credentials", "timeout", "plain_http"),
    "gs": ("endpoint", "ca", "proxy", "credentials", "timeout", "plain_http"),
    "site": ("ca", "cert", "key", "timeout"),
}


def scheme_of(url: str) -> str:
    """The scheme if it is one of a store behind a network, else ""."""
    scheme, found, _ = url.partition("://")
    return scheme if found and scheme in OPTIONS else ""


def check_option(scheme: str, name: str, value: str) -> None:
    """Raise ``BadAddress`` unless stores of ``scheme`` have this option and it may have this value.

    An empty scheme stands for stores without options.
    """
    known = OPTIONS.get(scheme, ())
    if name not in known:
        kind = f"{scheme}://" if scheme else "this kind of vault"
        raise BadAddress(
            f'"{name[:40]}" does not go with {kind}',
            f"known: {', '.join(known)}" if known else "",
            name,
        )
    try:
        (site_seconds if (scheme, name) == ("site", "timeout") else _CHECKS[name])(value)
    except BadAddress as error:
        error.option = name
        raise


def check_plain(endpoint: str, allowed: bool) -> None:
    """Raise ``BadAddress`` for http beyond this machine that nobody asked for."""
    found = urlsplit(endpoint)
    if found.scheme == "http" and not allowed and not is_loopback(found.hostname or ""):
        raise BadAddress(
            "http: lets everyone on the way read credentials that are sent along",
            "write https:, or allow it with plain_http: true",
            "endpoint",
        )


def parse(url: str) -> Address:
    """Take an address apart and check its options. Raises ``BadAddress``."""
    if len(url) > MAX_URL:
        raise BadAddress(f"longer than {MAX_URL} characters")
    scheme, _, rest = url.partition("://")
    place, asked, query = rest.partition("?")
    options: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(asked))
    except ValueError:
        raise BadAddress("options are written ?key=value&key=value") from None
    for name, value in pairs:
        if name in options:
            raise BadAddress(f'"{name[:40]}" is given twice', "", name)
        check_option(scheme, name, value)
        options[name] = value
    check_plain(options.get("endpoint", ""), options.get("plain_http") == "true")
    return Address(scheme, place, options)


def resolved(path: str, base: str) -> str:
    """A path of an option, from ``base`` if it is relative; "" stays."""
    if not path or path.startswith("/"):
        return path
    return f"{base.rstrip('/') or '/'}/{path.removeprefix('./')}"


def with_options(url: str, options: Mapping[str, str]) -> str:
    """``url`` with those options that it does not have itself; empty ones are none."""
    place, _, query = url.partition("?")
    given = {name: value for name, value in options.items() if value}
    return compose(place, given | dict(parse_qsl(query, keep_blank_values=True)))


def compose(url: str, options: Mapping[str, str]) -> str:
    """``url`` with options added, in the one way to write them. Nothing is checked."""
    if not options:
        return url
    known = OPTIONS.get(scheme_of(url), ())
    ordered = sorted(options, key=lambda name: (known.index(name) if name in known else 99, name))
    query = urlencode({name: options[name] for name in ordered}, quote_via=quote, safe="/:")
    return f"{url}{'&' if '?' in url else '?'}{query}"
