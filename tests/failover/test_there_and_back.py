"""Production goes to the other side and comes home, by the commands that a person gives."""

from __future__ import annotations

import shutil

import pytest

from stages.model import BLOCK
from tests.branches.test_adopt import KEYS, Two, two
from tests.cli.support import same

__all__ = ["two"]


def over(two: Two, *words: str) -> dict[str, object]:
    return two.json("failover", *words, *KEYS, "--confirm", "web1")


def home(two: Two, name: str) -> None:
    """The image of a point as a file."""
    two.json("restore", "web1", *KEYS, "--to", "out", "--confirm", "web1")
    shutil.move(two / "out" / "web1-root.img", two / f"{name}.img")


def test_there_and_back(two: Two) -> None:
    over(two, "planned", "web1", "--drained")
    over(two, "commit", "web1")
    home(two, "there")
    assert same(two / "there.img", two / "second.img")
    refused = two.backstay("run", "here.yaml", "--once")
    assert refused.code == 10
    over(two, "reprotect", "web1", "--state", "there-state")
    two.change("there", 10, 5, 3)
    assert two.ship("there")["changed_bytes"] == 5 * BLOCK
    two.change("there", 100, 2, 4)
    assert two.ship("there")["changed_bytes"] == 2 * BLOCK

    # Home again: the old disk becomes the newest point, and only differences are written.
    over(two, "planned", "web1", "--drained")
    over(two, "commit", "web1")
    (disk,) = two.json("restore", "web1", *KEYS, "--onto", "root=here.img", "--confirm", "web1")[
        "disks"
    ]
    assert disk["written"] <= 8 * BLOCK
    assert same(two / "here.img", two / "there.img")
    over(two, "reprotect", "web1", "--state", "here-state")
    two.change("here", 30, 1, 5)
    assert two.ship("here")["changed_bytes"] == BLOCK
    assert two.backstay("run", "there.yaml", "--once").code == 10
    assert two.is_restored("here.img", "web1", "#1")


def test_reprotect_wants_a_committed_failover(two: Two) -> None:
    words = ("failover", "reprotect", "web1", *KEYS, "--state", "there-state")
    assert two.backstay(*words, "--confirm", "web1").code == 11
    over(two, "unplanned", "web1")
    found = two.backstay(*words, "--confirm", "web1")
    assert found.code == 11
    assert "commit" in found.err


@pytest.mark.parametrize("when", ["before", "after"])
def test_reprotect_again(two: Two, when: str) -> None:
    over(two, "unplanned", "web1")
    over(two, "commit", "web1")
    if when == "before":  # it was cut off between folder and record
        parent = two.parent(2)
        found = two.json("failover", "status", "web1", *KEYS)
        two.adopt("there", parent, group=bytes.fromhex(str(found["branch"])))
    over(two, "reprotect", "web1", "--state", "there-state")
    home(two, "there")
    assert two.ship("there")["changed_bytes"] == 0
