"""Hypothesis for this folder: no test asserts a time. A real server, shared by the session."""

from __future__ import annotations

from hypothesis import settings

from tests.servers.fixtures import s3

__all__ = ["s3"]

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
