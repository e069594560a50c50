"""Real servers, shared by the session."""

from __future__ import annotations

from tests.servers.fixtures import azure, cloud, s3

__all__ = ["azure", "cloud", "s3"]
