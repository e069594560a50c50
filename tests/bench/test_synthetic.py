from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio

from bench import opening, synthetic
from bench.made import Made
from bench.scenarios import export, scale
from stages.model import BLOCK
from stages.recover.verify import Verify
from stages.store.file import FileStore
from stages.system import this_machine
from tests.bench.support import context


async def test_a_long_log_reads_back_what_was_written_last(tmp_path: Path) -> None:
    made = await synthetic.long_log(tmp_path, 64 << 20, 8 << 20, 3)
    assert (made.tail, made.checkpoint) == (4, 1)
    for seed in range(8):
        found = await opening.read(made, 0.0, seed)
        assert found["right"]
    wrong = replace(made, probes=tuple((block, number ^ 1) for block, number in made.probes))
    assert not (await opening.read(wrong, 0.0, 0))["right"]


def test_rollups_are_written_as_the_shipper_does(tmp_path: Path) -> None:
    made = trio.run(synthetic.long_log, tmp_path, 64 << 20, 4 << 20, 260)
    names = [one.name for one in Path(made.vault).glob("groups/*/rollups/*")]
    assert [int(name) for name in names] == [256]
    assert trio.run(opening.read, made, 0.0, 1)["right"]


async def test_the_vault_is_one_that_verify_accepts(tmp_path: Path) -> None:
    made = await synthetic.long_log(tmp_path, 64 << 20, 8 << 20, 3)
    ports = this_machine()
    group = await opening._group(made, FileStore(made.vault, ports), ports)
    found = await Verify(group, ports, made.tail).run()
    assert found.whole
    assert found.problems == ()


async def test_a_wide_map_is_read_before_and_after_its_checkpoint(tmp_path: Path) -> None:
    made = await synthetic.wide_map(tmp_path, 1 << 30, 256 << 20)
    assert (await opening.read(made, 0.0, 0))["right"]
    assert (await opening.window(made, 0.0, 0))["right"]
    assert (await opening.checkpoint(made, 0.0, 0))["right"]
    assert (await opening.read(made, 0.0, 1))["right"]


async def test_a_far_store_counts_calls(tmp_path: Path) -> None:
    made = await synthetic.long_log(tmp_path, 64 << 20, 4 << 20, 1)
    calls = (await opening.read(made, 0.0, 0))["calls"]
    assert isinstance(calls, int)
    assert calls > 10


def test_made_survives_its_file(tmp_path: Path) -> None:
    made = Made("v", "k", "s", "ab", "cd", BLOCK, 2, 1, ((5, 6),), 0)
    assert Made.load(made.save(tmp_path / "made.json")) == made


def test_what_is_written_lies_all_over_the_disk() -> None:
    blocks = synthetic.scattered(1 << 20, 1 << 14, np.random.default_rng(1))
    assert len(blocks) == 1 << 14
    assert (np.diff(blocks.astype(np.int64)) > 0).all()
    assert blocks[-1] > (1 << 20) * 3 // 4
    with pytest.raises(ValueError, match="do not fit"):
        synthetic.scattered(100, 200, np.random.default_rng(1))


def test_tiles_do_not_overlap() -> None:
    starts = np.array(list(synthetic.tiles(1 << 24, 1 << 20)))
    assert (np.diff(starts) >= synthetic._TILE).all()
    assert starts[-1] + synthetic._TILE <= 1 << 24


def test_the_export_scenario_reads_by_every_way(tmp_path: Path) -> None:
    outcome = export.run(context(tmp_path))
    assert outcome.wrong == outcome.failed == ()
    assert [len(entry.samples) for entry in outcome.entries] == [1, 1]


def test_the_scale_scenario_takes_all_its_steps(tmp_path: Path) -> None:
    outcome = scale.run(context(tmp_path))
    assert outcome.wrong == outcome.failed == ()
    assert len(outcome.entries) == len(scale.STEPS)
    assert all(goal.measured for goal in outcome.goals)
