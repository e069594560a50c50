"""Live scenarios on tiny disks, with real daemons, nbdkit and fio. No time and no ratio counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.context import Context
from bench.live import NBDKIT, Daemon, LiveBackstay
from bench.load import LATENCY_SERIES, POINTS, RATE_SERIES, Load, make_disk, parsed, series_of
from bench.measure import CommandFailed
from bench.qemu import QEMU_NBD
from bench.results import Outcome
from bench.running import code_of
from bench.scenarios import catchup, grid, rpo, splitter, sustained
from bench.subjects import BACKSTAY, BackstayCopy
from bench.watching import AGE_SERIES, Age, VaultTail
from tests.bench.support import TINY, context

Run = Callable[[Context, LiveBackstay], Outcome]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A tiny context, with a few of the loads."""
    *_, flushing, large = splitter.WRITES
    monkeypatch.setattr(splitter, "WRITES", (flushing,))
    monkeypatch.setattr(splitter, "READS", splitter.READS[:1])
    monkeypatch.setattr(sustained, "WRITES", (large,))
    monkeypatch.setattr(rpo, "WAYS", rpo.WAYS[1:])
    monkeypatch.setattr(grid, "QUICK_POINTS", (("4k", 1),))
    found = context(tmp_path)
    found.work.mkdir()
    found.scale = replace(
        TINY, live=8 << 20, burst=1, sustained=1, paced=2, away=2, journal=256 << 20
    )
    return found


@pytest.mark.parametrize(
    ("run", "subjects"),
    [
        (splitter.run, (f"{splitter.WRITES[2].load.name}: {BACKSTAY}",)),
        (sustained.run, (f"{splitter.WRITES[3].load.name}: {BACKSTAY}",)),
        (rpo.run, (rpo.QUICK,)),
        (grid.run, tuple(f"4k reads d1: {name}" for name in (BACKSTAY, NBDKIT, QEMU_NBD))),
        (catchup.run, (catchup.THERE, catchup.AWAY, catchup.BACK)),
    ],
)
def test_all_that_was_written_arrives(made: Context, run: Run, subjects: tuple[str, ...]) -> None:
    outcome = run(made, LiveBackstay())
    assert outcome.failed == outcome.wrong == ()
    for subject in subjects:
        entry = outcome.entry(subject)
        assert entry is not None
        assert entry.median("rate")
        series = entry.samples[0].series
        assert RATE_SERIES in series
        assert LATENCY_SERIES in series
        assert (AGE_SERIES in series) == (outcome.scenario == "rpo")
        for points in series.values():
            assert [at for at, _ in points] == sorted(at for at, _ in points)
            assert all(value >= 0 for _, value in points)
    assert all(goal.measured is not None for goal in outcome.goals)
    assert code_of([outcome]) == 0


class _Spoiler(LiveBackstay):
    """What it brings back is wrong in one bit."""

    def daemon(self, copy: BackstayCopy, socket: Path) -> Daemon:
        return _SpoilingDaemon(copy, socket)


class _SpoilingDaemon(Daemon):
    def restored(self, target: Path) -> Path:
        path = super().restored(target)
        with path.open("r+b") as file:
            file.seek(4097)
            (value,) = file.read(1)
            file.seek(4097)
            file.write(bytes([value ^ 1]))
        return path


def test_a_daemon_that_corrupts_is_caught_and_not_measured(made: Context) -> None:
    outcome = rpo.run(made, _Spoiler())  # all live scenarios are compared by the same code
    assert len(outcome.wrong) == 1
    assert outcome.goals[0].verdict == "not measured"
    assert not any(entry.median("rate") for entry in outcome.entries)
    assert code_of([outcome]) == 1


class _Dead(LiveBackstay):
    """It has a configuration that cannot be run."""

    def daemon(self, copy: BackstayCopy, socket: Path) -> Daemon:
        copy.config.write_text("machines: {}")
        return Daemon(copy, socket)


def test_a_daemon_that_does_not_serve_is_named(made: Context) -> None:
    outcome = rpo.run(made, _Dead())
    assert len(outcome.failed) == 1
    assert code_of([outcome]) == 3


class _Absent(LiveBackstay):
    def missing(self) -> str:
        return "no-such-program"


@pytest.mark.parametrize("run", [splitter.run, sustained.run, rpo.run, catchup.run])
def test_what_is_not_installed_is_left_out(made: Context, run: Run) -> None:
    outcome = run(made, _Absent())
    assert outcome.entries == ()
    assert any("no-such-program" in note for note in outcome.notes)


def test_a_disk_has_no_block_twice_and_no_holes(tmp_path: Path) -> None:
    data = make_disk(tmp_path / "disk", 1 << 20, 1).read_bytes()
    blocks = {data[at : at + 4096] for at in range(0, len(data), 4096)}
    assert len(blocks) == 256
    assert bytes(4096) not in blocks


def test_a_load_says_what_it_means() -> None:
    words = Load("x", "4k-64k", 8, flush=True, rate=5).argv("nbd:x", 1 << 20, 0.2, 3)
    for word in ("--bsrange=4k-64k", "--fsync=1", "--rate=5", "--runtime=200ms", "--randseed=3"):
        assert word in words
    words = Load("x", "1m", 8, reads=True).argv("nbd:x", 1 << 20, 5, 3)
    assert "--rw=randread" in words
    assert "--refill_buffers" not in words


@pytest.mark.parametrize("said", ["", "fio: no", "{}", '{"jobs": []}', '{"jobs": [{}]}'])
def test_a_report_that_is_none_is_an_error(said: str) -> None:
    with pytest.raises(CommandFailed, match="not understood"):
        parsed(said)


def test_a_log_of_fio_becomes_points_and_a_long_one_fewer() -> None:
    assert series_of("100, 2048, 1, 0, 0\n50, 1024, 0, 0, 0\n", 1 / 1024) == (
        (0.05, 1.0),
        (0.1, 2.0),
    )
    long = "".join(f"{at * 100}, {at}, 1, 0, 0\n" for at in range(POINTS * 2))
    found = series_of(long, 1.0)
    assert len(found) == POINTS
    assert found[0] == (0.05, 0.5)
    assert series_of("", 1.0) == ()
    with pytest.raises(CommandFailed, match="not understood"):
        series_of("a, b", 1.0)


def test_a_vault_without_commits_is_as_old_as_the_load(tmp_path: Path) -> None:
    tail = VaultTail(tmp_path)
    assert tail.look().seq == 0
    age = Age(tail)
    age.look()
    assert age.figures()["age_max"] >= 0
    assert age.figures()["points"] == 0
