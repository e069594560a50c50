"""Where the intake process begins: ``python -m pipeline.daemon.intake_main CONFIG
[MACHINE/DISK...]``. The disks named are those that the operator vouches for."""

from __future__ import annotations

import ctypes
import sys

from pipeline.daemon.collecting import begin_lean

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def main() -> int:
    """The process: its exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # its memory is what guests write
    begin_lean()  # before the imports, which make much and leave nothing to collect
    from pipeline.daemon.intake_process import capture

    return capture(sys.argv[1], frozenset(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
