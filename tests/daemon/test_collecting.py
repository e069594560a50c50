"""How a process begins and ends: with nothing that nobody asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LEAN = """
import atexit, gc, os
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # the last one: runs after all others
from pipeline.daemon.collecting import begin_lean
begin_lean()
import numpy
print(len(os.listdir("/proc/self/task")), os.environ["OPENBLAS_NUM_THREADS"])
"""


@pytest.mark.parametrize("chosen", ["", "2"])
def test_no_threads_for_algebra_and_no_search_for_garbage_at_the_end(chosen: str) -> None:
    """What somebody has set stays as it is."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": chosen}
    if not chosen:
        del environment["OPENBLAS_NUM_THREADS"]
    done = subprocess.run(
        [sys.executable, "-c", LEAN], env=environment, capture_output=True, text=True, check=True
    )
    said, frozen = done.stdout.splitlines()
    assert frozen == "True"
    assert said.endswith(f" {chosen or 1}")
    assert chosen or said == "1 1"
