"""``python -m pipeline.demo.leashed PARENT ARGUMENT…``: a backstay command that ends with PARENT.

The kernel sends it SIGTERM when its parent is gone, in whatever way that went: a daemon then stops
in order, and nothing of a demonstration that was killed stays behind.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """The process."""
    parent = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)  # it was gone before it could be told
    runpy.run_module("pipeline.cli.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
