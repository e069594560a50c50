from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zstandard

from bench import ceilings
from bench.measure import checked
from bench.subjects import json_of, python_command


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """5 MiB of random and repeated blocks after a hole of 8 MiB, with zero blocks between."""
    dice = np.random.default_rng(3)
    blocks = dice.integers(0, 256, (1280, 4096), dtype=np.uint8)
    blocks[::4] = 0
    blocks[1::4] = 9
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.seek(8 << 20)
        file.write(blocks.tobytes())
    return path


@pytest.mark.parametrize("kind", list(ceilings.KINDS))
def test_each_ceiling_runs_as_a_process(image: Path, tmp_path: Path, kind: str) -> None:
    command = python_command("bench.ceilings", kind, str(image), "--workers", "2", cwd=tmp_path)
    found = json_of(checked(command, tmp_path).output)
    assert found["seconds"] > 0


def test_holes_are_not_read(image: Path) -> None:
    assert ceilings.read_only(str(image), 1)["bytes"] < 6 << 20


def test_all_data_is_hashed_whoever_does_it(image: Path) -> None:
    whole = ceilings.hash_all(str(image), 1)["bytes"]
    assert whole == sum(ceilings._hash_share(str(image), which, 3) for which in range(3))


def test_frames_hold_what_is_not_zero_in_pieces_of_256_kib(image: Path) -> None:
    blocks = np.frombuffer(image.read_bytes(), np.uint8).reshape(-1, 4096)
    content = blocks[blocks.any(axis=1)].tobytes()
    pieces = [content[at : at + (256 << 10)] for at in range(0, len(content), 256 << 10)]
    stored = sum(len(zstandard.ZstdCompressor(level=1).compress(piece)) for piece in pieces)
    found = ceilings.frames(str(image), 2)
    assert found["frames"] == len(pieces)
    assert found["stored"] <= stored < found["stored"] + 100 * len(pieces)


def test_all_data_is_sealed_written_and_sent(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ceilings.read_only(str(image), 1)["bytes"]
    assert ceilings.write(str(image), 1)["bytes"] == data
    assert not (tmp_path / "written").exists()
    nonzero = np.frombuffer(image.read_bytes(), np.uint8).reshape(-1, 4096).any(axis=1).sum() * 4096
    sealed = ceilings.aead(str(image), 2)["bytes"]
    frames = -(-nonzero // (256 << 10))
    assert sealed == nonzero + frames * 64  # a nonce and a tag each


def test_what_is_sent_is_counted_by_who_receives_it(image: Path, tmp_path: Path) -> None:
    command = python_command("bench.ceilings", "socket", str(image))
    found = json_of(checked(command, tmp_path).output)
    assert found["bytes"] == ceilings.read_only(str(image), 1)["bytes"]
