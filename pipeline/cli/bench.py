"""``bench``: the benchmark harness, which is a package of its own (``python -m bench``)."""

from __future__ import annotations

from bench.cli import bench

__all__ = ["bench"]
