"""An object store, shared with the tests that use it elsewhere."""

from __future__ import annotations

from tests.servers.fixtures import s3

__all__ = ["s3"]
