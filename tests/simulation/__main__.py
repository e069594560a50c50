"""Many stories: ``python -m tests.simulation --seeds 0-2000 [--writes N] [--jobs N]``.

A story is the life of one machine under faults (``story``), drawn from its seed (``knobs``) and
held against a model (``model``, ``checker``). A line for each story that breaks a rule, with the
command that tells it again; exit code 1 if there was one. ``--trace`` prints a digest of everything
that happened: the same for the same seed, in every process. ``--canary NAME``: a planted bug.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from contextlib import nullcontext
from multiprocessing import Pool

from stages.errors import leaves
from tests.simulation.canaries import CANARIES
from tests.simulation.knobs import draw
from tests.simulation.story import Story


def tell(task: tuple[int, int, str]) -> tuple[int, str, str]:
    """One story: its seed, what is wrong, and its trace."""
    seed, writes, name = task
    planted = next((canary for canary in CANARIES if canary.name == name), None)
    story = Story(seed, planted.knobs if planted else draw(seed, writes))
    wrong = ""
    try:
        with planted.bug() if planted else nullcontext():
            story.run()
    except (Exception, BaseExceptionGroup) as raised:  # noqa: BLE001 - the next is told too
        wrong = " | ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves(raised)[:3])
        if not wrong:
            wrong = "".join(traceback.format_exception(raised))
    said = f"{story.trace.digest()} {story.trace.events}"
    story.forget()
    return seed, wrong, said


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0-500", help="FIRST-LAST (exclusive), or one")
    parser.add_argument("--writes", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--canary", default="", choices=["", *(each.name for each in CANARIES)])
    parser.add_argument("--trace", action="store_true")
    said = parser.parse_args()
    first, _, last = said.seeds.partition("-")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    started, failed = time.monotonic(), 0
    with Pool(said.jobs) as pool:
        tasks = [(seed, said.writes, said.canary) for seed in seeds]
        for seed, wrong, trace in pool.imap(tell, tasks):
            if said.trace:
                print(seed, trace, flush=True)  # noqa: T201
            if wrong:
                failed += 1
                again = f"python -m tests.simulation --seeds {seed} --writes {said.writes}"
                again += f" --canary {said.canary}" if said.canary else ""
                print(f"{seed}: {wrong}\n    {again}", flush=True)  # noqa: T201
    print(f"{len(seeds)} stories, {failed} wrong, {time.monotonic() - started:.0f} s")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
