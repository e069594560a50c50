"""Vaults in which every kind of object occurs, small enough to spoil each of them in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from stages.capture.scan import Scan
from stages.model import BLOCK, GapBegin, GapEnd
from tests.faults import tamper
from tests.faults.world import (
    KIB,
    MIB,
    World,
    found,
    learn_names,
    make_image,
    overwrite,
    protect,
    text_like,
)

SPAN = 256
_TUNED = "{cache: {seal_bytes: 1MiB}, ship: {inline: 32KiB}}"
EMPTY = 256  # commits without a change, to fill a rollup


def with_checkpoint(root: Path) -> World:
    """Three points; a checkpoint lies at the second. Two machine records, two charters."""
    rng = np.random.default_rng(11)
    world = found(root)
    _small(world)
    protect(world, "first")
    writer = tamper.stranger().public.hex()[::-1]
    world.fine("vault", "admit", "file:./vault", "--key", "op.key", "--writer", writer)
    overwrite(root / "root.img", {MIB: rng.bytes(100 * KIB)})
    with (root / "data.img").open("ab") as file:
        file.write(rng.bytes(5000))
    with patch("stages.ship.checkpointer.SHARE", 1e9):
        protect(world, "second")
    _last_change(world)
    return world


def with_rollup(root: Path) -> World:
    """More than 256 commits, no checkpoint: the rollup stands for most of the log."""
    rng = np.random.default_rng(12)
    world = found(root)
    _small(world)
    with patch("stages.ship.checkpointer.SHARE", 0.0):
        protect(world, "first")
        overwrite(root / "root.img", {MIB: rng.bytes(40 * KIB)})
        with _many_commits():
            protect(world, "second")
        _last_change(world)
    assert world.path(world.object(f"rollups/{SPAN:015d}")).is_file()
    return world


def _small(world: World) -> None:
    rng = np.random.default_rng(13)
    make_image(
        world.path("root.img"), 4 * MIB, {0: rng.bytes(2200 * KIB), 3 * MIB: text_like(200 * KIB)}
    )
    make_image(world.path("data.img"), 300 * KIB + 1000, {0: rng.bytes(60 * KIB)})
    config = world.path("c.yaml").read_text()
    config = config.replace("{ship: {inline: 64KiB}}", _TUNED)
    world.path("c.yaml").write_text(config[: config.index("  db1:")])


def _last_change(world: World) -> None:
    rng = np.random.default_rng(14)
    overwrite(world.path("root.img"), {2 * MIB: rng.bytes(9000), 3 * MIB: bytes(8 * KIB)})
    overwrite(world.path("data.img"), {16 * KIB: rng.bytes(5000)})
    protect(world, "third")
    learn_names(world)


@contextmanager
def _many_commits() -> Iterator[None]:
    original: Callable[..., Any] = Scan.run

    async def run(self: Scan) -> None:
        for _ in range(EMPTY):
            await self._sink.send(GapBegin("none"), BLOCK)
            await self._sink.send(GapEnd("quiet"), BLOCK)
        await original(self)

    with patch.object(Scan, "run", run):
        yield
