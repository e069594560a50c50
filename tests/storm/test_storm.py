"""A real ext4 on captured disks while the daemon's processes are killed: points tell the truth.

``python -m tests.storm`` does the same for longer, with other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.support import KEYS
from tests.faults.mounts import ROOT_NEEDED, available
from tests.storm.guest import StormError
from tests.storm.points import check, look_at
from tests.storm.storm import VARIANTS, plan, raised

SEED = "20"
COUNTS = {"delivery": 1, "hang": 1, "parent": 1, "intake": 1, "all": 1, "mark": 2}
APART = 25
SAMPLE = 12

pytestmark = pytest.mark.skipif(not available(), reason=f"needs {ROOT_NEEDED}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: sockets need one. Nothing that uses it is left at the end."""
    with TemporaryDirectory(prefix="bs-") as made:
        yield Path(made)
        assert left_behind(made) == []


def left_behind(folder: str) -> list[str]:
    """Mounts, loop devices and processes that name a folder."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if folder in line]
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            mounts += [line for line in file.read_text().splitlines() if folder in line]
        except OSError:  # it has just gone
            continue
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if folder in words:
            mounts.append(words)
    return mounts


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_point_holds_what_was_durable_before_it(folder: Path, variant: str) -> None:
    with raised(folder, variant, SEED, print) as storm:
        storm.run(plan(SEED, COUNTS, APART), APART)
        found = check(storm, SAMPLE)
        assert found.looked_at >= min(SAMPLE, found.consistent)
        assert found.operations > 100
        # It would be seen: the same point, were it said to be an older or a newer one.
        points = storm.place.json("points", "web1", *KEYS, "--count", "100000")["points"]
        newest, oldest = points[0], points[-1]
        assert look_at(storm, newest | {"stamp": oldest["stamp"]})
        assert look_at(storm, oldest | {"stamp": newest["stamp"]})


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_stays_behind_a_failure(folder: Path, variant: str) -> None:
    with (
        pytest.raises(StormError, match="the guest noticed"),
        raised(folder, variant, SEED) as storm,
    ):
        storm.begin()
        assert len(left_behind(str(folder))) >= 4
        storm.pull_the_disk()
        storm.go_on(10_000)
