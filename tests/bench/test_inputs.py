from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from bench import inputs
from stages.model import BLOCK
from tests.waiting import until


def test_an_image_is_a_file_system_of_about_that_size_and_is_cached(tmp_path: Path) -> None:
    path = inputs.image(tmp_path, 2 << 20)
    content = inputs.content_of(path)
    assert 1 << 20 < content.nonzero < 8 << 20
    assert content.allocated < content.size
    assert path.stat().st_size % BLOCK == 0
    checker = shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin")
    assert checker, "it comes with e2fsprogs"
    subprocess.run([checker, "-fn", str(path)], check=True, capture_output=True)
    before = path.stat().st_mtime_ns
    assert inputs.image(tmp_path, 2 << 20) == path
    assert path.stat().st_mtime_ns == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_images_are_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = inputs.image(tmp_path / "a", 1 << 20)
    second = time.time_ns() // 10**9
    # The clock is what may make a difference.
    until("the next second", lambda: time.time_ns() // 10**9 != second)
    other = inputs.image(tmp_path / "b", 1 << 20)
    assert one.name == other.name
    assert inputs.same(one, other)


def test_picked_files_stay_within_the_size() -> None:
    picked = list(inputs.pick(4 << 20))
    assert picked == list(inputs.pick(4 << 20))
    assert 3 << 20 < sum(one.size for one in picked) <= 4 << 20


def test_changes_hit_used_blocks_only_and_differ_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    before = np.zeros((2000, BLOCK), np.uint8)
    before[500:1500] = 7
    path.write_bytes(before.tobytes())
    changed = []
    for seed in (1, 2):
        assert inputs.change(path, 0.01, seed) == 10
        after = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, BLOCK)
        hit = np.flatnonzero((after != before).any(axis=1))
        assert len(hit) == 10
        assert hit.min() >= 500
        assert hit.max() < 1500
        changed.append(hit.tolist())
        path.write_bytes(before.tobytes())
    assert changed[0] != changed[1]


@pytest.mark.parametrize("other", [b"", b"abcd", b"abd", b"ab"])
def test_other_bytes_are_told_apart(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "one").write_bytes(b"abc")
    (tmp_path / "other").write_bytes(other)
    assert not inputs.same(tmp_path / "one", tmp_path / "other")


def test_a_missing_copy_is_not_the_same(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"abc")
    assert not inputs.same(tmp_path / "one", tmp_path / "none")
    assert inputs.same(tmp_path / "one", tmp_path / "one")


def test_clones_keep_content_and_holes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"x" * BLOCK)
    clone = inputs.clone(source, tmp_path / "clone")
    assert inputs.same(source, clone)
    assert inputs.content_of(clone) == inputs.content_of(source)
    assert inputs.content_of(clone).allocated < 1 << 20


def test_a_file_with_several_names_is_taken_once_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "d").write_bytes(b"y" * 1000)
    picked = [one.path.name for one in inputs.pick(1 << 20, (str(tmp_path),))]
    assert picked == ["a", "d"]


def test_no_folder_fills_the_image_alone(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for number in range(20):
            (tmp_path / folder / str(number)).write_bytes(b"x" * 1000)
    picked = list(inputs.pick(10_000, (str(tmp_path),)))
    assert [one.path.parent.name for one in picked] == ["a", "a", "b", "b"]
