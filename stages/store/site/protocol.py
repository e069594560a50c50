"""What both ends of a second site agree on.

Objects are at ``/v1/vaults/VAULT/objects/KEY``: PUT (always with ``If-None-Match: *``), GET (with
``Range: bytes=A-B``), HEAD, DELETE. ``GET /v1/vaults/VAULT/objects?prefix=&after=&limit=`` lists,
as JSON ``{"objects": [[KEY, SIZE, MODIFIED], …], "more": BOOL}``. Whatever a site answers bears
``Backstay-Site: VERSION``; an answer without it comes from something else. An error names its
class in ``Backstay-Error`` and is a problem document (RFC 9457).

A PUT may carry ``Backstay-Digest: blake3:HEX``; the site stores only what has it. 201 means: on
stable storage.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urlencode

from blake3 import blake3

from stages.ports import Buffer

VERSION = "1"
VERSION_HEADER = "backstay-site"
ERROR_HEADER = "backstay-error"
DIGEST_HEADER = "backstay-digest"
MODIFIED_HEADER = "backstay-modified"
_DIGEST = "blake3:"
PAGE = 1000  # objects in one answer, at most
PORT = 8443  # where a URL names none


def collection(vault: str) -> str:
    """The path of a vault's objects."""
    return f"/v1/vaults/{quote(vault, safe='')}/objects"


def listing(vault: str, prefix: str, after: str, limit: int) -> str:
    """The target of a request for a page."""
    return f"{collection(vault)}?{urlencode({'prefix': prefix, 'after': after, 'limit': limit})}"


def byte_range(offset: int, length: int | None) -> str:
    """The value of ``Range`` for at least one byte."""
    return f"bytes={offset}-" if length is None else f"bytes={offset}-{offset + length - 1}"


class Digester:
    """Computes the value of ``Backstay-Digest`` from the parts of an object."""

    def __init__(self, parts: Iterable[Buffer] = ()):
        self._state = blake3()
        for part in parts:
            self.update(part)

    def update(self, part: Buffer) -> None:
        """Take the next part."""
        self._state.update(part)

    def header(self) -> str:
        """Of all parts so far."""
        return _DIGEST + self._state.hexdigest()
