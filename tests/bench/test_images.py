from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from bench import images
from bench.inputs import InputFailed, content_of

MIB = 1 << 20


def shrunk(path: Path) -> float:
    data = path.read_bytes()
    return len(zstandard.ZstdCompressor(level=1).compress(data)) / len(data)


@pytest.mark.parametrize(("kind", "low", "high"), [("random", 0.99, 1.1), ("text", 0.1, 0.45)])
def test_an_image_is_what_it_says_and_the_same_each_time(
    tmp_path: Path, kind: str, low: float, high: float
) -> None:
    one = images.made(kind, tmp_path, 4 * MIB)
    assert one.stat().st_size == 4 * MIB
    assert low < shrunk(one) < high
    data, found = one.read_bytes(), one.stat()
    assert len({data[at : at + 4096] for at in range(0, len(data), 4096)}) == 4 * 256
    assert images.made(kind, tmp_path, 4 * MIB).stat().st_mtime_ns == found.st_mtime_ns
    one.unlink()
    assert images.made(kind, tmp_path, 4 * MIB).read_bytes() == data
    assert list(tmp_path.iterdir()) == [one]


def test_a_database_was_changed_and_shut_down_cleanly(tmp_path: Path) -> None:
    found = images.made("postgres", tmp_path, 16 * MIB)
    content = content_of(found)
    assert content.nonzero > 30 * MIB
    assert found.read_bytes()[1080:1082] == b"\x53\xef"  # ext4's magic number
    assert 0 < shrunk(found) < 0.5
    assert list(tmp_path.iterdir()) == [found]


def test_what_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputFailed, match="there are system, postgres"):
        images.made("films", tmp_path, MIB)
    monkeypatch.setattr(images, "_PROGRAMS", tmp_path / "none")
    with pytest.raises(InputFailed, match="package postgresql"):
        images.made("postgres", tmp_path, MIB)
    assert list(tmp_path.iterdir()) == []
