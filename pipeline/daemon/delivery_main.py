"""Where the delivery process begins: ``python -m pipeline.daemon.delivery_main CONFIG``."""

from __future__ import annotations

import ctypes
import os
import sys

from pipeline.daemon.collecting import begin_lean

_NICE = 10
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def main() -> int:
    """The process: its exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    os.nice(_NICE)
    begin_lean()  # before the imports, which make much and leave nothing to collect
    from pipeline.daemon.delivery_process import deliver

    return deliver(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
