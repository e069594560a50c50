"""Addresses in a configuration: of vaults, of the sockets that serve disks, of the API."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo

from pipeline.config.fields import folder_of, optional, resolve, text
from pipeline.config.problems import quote
from pipeline.config.units import Wrong
from stages.store.address import OPTIONS, BadAddress
from stages.store.cloud.settings import split_place
from stages.store.site.address import parse_site

MAX_SOCKET = 107  # bytes of a Unix socket's path, unix(7)
_KNOWN_SCHEMES = (
    "known: file:PATH, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, gs://BUCKET/PREFIX, "
    "site://HOST:PORT/VAULT"
)


def address(value: object, folder: str) -> str:
    """Where a disk is served, in the one way to write it: ``unix:`` and an absolute path, or a
    loopback address and its port. Raises ``Wrong``."""
    given = text(value)
    if given.startswith("unix:"):
        path = resolve(given.removeprefix("unix:"), folder)
        if len(os.fsencode(path)) > MAX_SOCKET:
            raise Wrong(f"a socket's path has at most {MAX_SOCKET} bytes", "use a shorter one")
        return f"unix:{path}"
    host, port = _host_and_port(given, "127.0.0.1:PORT")
    found = _number("127.0.0.1" if host == "localhost" else host)
    if found is None or not found.is_loopback:
        raise Wrong(
            f"{quote(host)} is not this machine's loopback address, and NBD has no TLS here",
            "write unix:PATH, or 127.0.0.1:PORT and forward it with ssh",
        )
    return _written(found, port)


def api_address(value: object, folder: str) -> str:
    """Where the API listens: ``unix:`` and an absolute path, or the address of an interface and a
    port. Raises ``Wrong``."""
    given = text(value)
    if given.startswith("unix:"):
        return address(given, folder)
    host, port = _host_and_port(given, "0.0.0.0:8443")
    found = _number("127.0.0.1" if host == "localhost" else host)
    if found is None:
        raise Wrong(
            f"{quote(host)} is not the number of an interface", "write 0.0.0.0 for all of them"
        )
    return _written(found, port)


def _host_and_port(given: str, example: str) -> tuple[str, int]:
    host, colon, port = given.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise Wrong(f"{quote(given)} is not an address", f"write unix:PATH or {example}")
    if not 1 <= int(port) <= 65535:
        raise Wrong(f"a port is a number from 1 to 65535, not {port}")
    return host, int(port)


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _written(found: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    return f"{found}:{port}" if found.version == 4 else f"[{found}]:{port}"


def _url(value: object, info: ValidationInfo) -> str:
    url = text(value)
    scheme, colon, rest = url.partition(":")
    if scheme in OPTIONS and rest.startswith("//"):
        return _network_url(url, scheme)
    if not colon or "/" in scheme:
        raise Wrong(f"{quote(url)} is not the address of a vault", f"write {quote('file:' + url)}")
    if scheme != "file":
        raise Wrong(f"{quote(scheme + ':')} is not a kind of vault", _KNOWN_SCHEMES)
    if rest.startswith("//"):
        if not rest.startswith("///"):
            raise Wrong("a file: vault has no host", "write file:PATH")
        rest = rest[2:]
    if not rest:
        raise Wrong("the path of the vault is missing", "write file:PATH")
    return "file:" + resolve(rest, folder_of(info))


def _network_url(url: str, scheme: str) -> str:
    if "?" in url:
        example = "ca: /etc/backstay/ca.crt" if scheme == "site" else "endpoint: https://HOST"
        raise Wrong("options stand beside the url here", f"for example {example}")
    try:
        if scheme == "site":
            return parse_site(url).url
        bucket, prefix = split_place(scheme, url.partition("://")[2])
    except BadAddress as error:
        raise Wrong(error.message, error.hint) from None
    return f"{scheme}://{bucket}/{prefix}".rstrip("/")


def _listen(value: object, info: ValidationInfo) -> str:
    return address(value, folder_of(info))


VaultUrl = Annotated[str, PlainValidator(_url)]
Listen = Annotated[str | None, optional(_listen)]
