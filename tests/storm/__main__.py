"""``python -m tests.storm``: rounds of storms, each with a seed of its own.

A seed fixes what happens after how many of the writer's operations, and what the writer does; what
the processes are doing at that moment differs from run to run, so a failure may take several.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.mounts import ROOT_NEEDED, available
from tests.storm.points import check
from tests.storm.storm import VARIANTS, Act, plan, raised

COUNTS = {"delivery": 6, "hang": 2, "parent": 3, "intake": 4, "all": 4, "restart": 2, "mark": 6}


def main() -> int:
    """Exit code 1 if a round failed."""
    words = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    words.add_argument("--rounds", type=int, default=4)
    words.add_argument("--seed", type=int, default=1, help="of the first round; +1 for each more")
    words.add_argument("--variant", choices=sorted(VARIANTS), help="default: in turn")
    words.add_argument("--apart", type=int, default=60, help="operations between two acts")
    words.add_argument("--sample", type=int, help="points looked at; default: all consistent ones")
    words.add_argument("--folder", help="where disks and vaults are made (a short path)")
    words.add_argument("--keep", help="a folder for disks, vaults and states of rounds that fail")
    given = words.parse_args()
    if not available():
        words.error(f"needs {ROOT_NEEDED}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleaning up on the way out
    failed = 0
    for at in range(given.rounds):
        seed = given.seed + at
        variant = given.variant or sorted(VARIANTS)[seed % len(VARIANTS)]
        acts = plan(str(seed), COUNTS, given.apart)
        print(f"round {at + 1}: {variant}, seed {seed}", flush=True)
        if not _round(variant, seed, acts, given):
            failed += 1
            print(
                f"FAILED. Again: {sys.executable} -m tests.storm --rounds 1 --seed {seed} "
                f"--variant {variant} --apart {given.apart}",
                flush=True,
            )
    print(f"{given.rounds - failed} of {given.rounds} rounds held")
    return 1 if failed else 0


def _round(variant: str, seed: int, acts: list[Act], given: argparse.Namespace) -> bool:
    began = time.monotonic()
    with TemporaryDirectory(prefix="bs-", dir=given.folder) as folder:
        try:
            with raised(Path(folder), variant, str(seed), _tell) as storm:
                storm.run(acts, given.apart)
                _tell(f"stopped after {time.monotonic() - began:.0f} s; looking at the points")
                found = check(storm, given.sample)
        except (AssertionError, OSError):
            traceback.print_exc()
            if given.keep:
                _keep(Path(folder), Path(given.keep) / f"{variant}-{seed}")
            return False
    print(
        f"  held: {found.looked_at} of {found.consistent} consistent points ({found.points} in "
        f"all), {found.operations} durable operations, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return True


def _keep(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.sock"), dirs_exist_ok=True)
    print(f"  kept in {to}", flush=True)


def _tell(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
