from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import naive, subjects
from bench.blank import Blank
from bench.context import Context
from bench.measure import Command, checked
from bench.measure import Run as Ran
from bench.results import Outcome
from bench.running import code_of
from bench.scenarios import changed, initial, restore, sizes, unchanged
from bench.subjects import BACKSTAY
from stages.usage import bottleneck
from tests.bench.support import Absent, Copier, context

Run = Callable[[Context], Outcome]
COPYING = pytest.mark.parametrize(
    "run", [initial.run, unchanged.run, changed.run, restore.run], ids=lambda run: run.__module__
)


@COPYING
def test_an_honest_copier_is_measured(tmp_path: Path, run: Run) -> None:
    outcome = run(context(tmp_path, Copier(BACKSTAY), Copier("restic"), repeat=2))
    mine = outcome.entry(BACKSTAY)
    assert mine is not None
    assert len(mine.samples) == 2
    assert outcome.wrong == outcome.failed == ()
    assert code_of([outcome]) == 0
    assert all(goal.verdict for goal in outcome.goals)


@COPYING
def test_a_subject_that_corrupts_is_caught(tmp_path: Path, run: Run) -> None:
    outcome = run(context(tmp_path, Copier(BACKSTAY, spoil=True), Copier("restic")))
    assert len(outcome.wrong) == 1
    assert BACKSTAY in outcome.wrong[0]
    assert code_of([outcome]) == 1


@pytest.mark.parametrize("run", [initial.run, restore.run, changed.run])
def test_the_time_of_a_wrong_copy_is_not_counted(tmp_path: Path, run: Run) -> None:
    outcome = run(context(tmp_path, Copier(BACKSTAY, spoil=True), Copier("restic")))
    assert outcome.entry(BACKSTAY) is None
    assert outcome.goals[0].verdict == "not measured"


@COPYING
def test_a_subject_that_fails_is_named(tmp_path: Path, run: Run) -> None:
    outcome = run(context(tmp_path, Copier(BACKSTAY), Copier("restic", fail=True), repeat=2))
    assert len(outcome.failed) == 1
    assert "no room" in outcome.failed[0]
    assert code_of([outcome]) == 0
    outcome = run(context(tmp_path, Copier(BACKSTAY, fail=True), Copier("restic")))
    assert code_of([outcome]) == 3


@COPYING
def test_a_subject_that_is_not_installed_is_left_out(tmp_path: Path, run: Run) -> None:
    outcome = run(context(tmp_path, Copier(BACKSTAY), Absent("restic")))
    assert outcome.entry("restic") is None
    assert any("restic is left out" in note for note in outcome.notes)


def test_scenarios_leave_nothing_but_what_is_below_the_work_folder(tmp_path: Path) -> None:
    made = context(tmp_path, Copier(BACKSTAY))
    initial.run(made)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["disk.img", "work"]


def test_a_copy_that_is_only_read_is_made_once(tmp_path: Path) -> None:
    said: list[str] = []
    made = context(tmp_path, Copier(BACKSTAY), repeat=2)
    made.say = said.append
    initial.run(made)
    assert restore.run(made).wrong == ()
    assert not any("first run" in line for line in said)
    spoilt = context(tmp_path, Copier(BACKSTAY, spoil=True))
    initial.run(spoilt)
    spoilt.subjects = (Copier(BACKSTAY),)  # what was wrong is not kept for others
    spoilt.say = said.append
    assert restore.run(spoilt).wrong == ()
    assert [line for line in said if "first run" in line] == ["first run: backstay"]


def test_key_and_vault_are_made_once_and_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def noted(command: Command, folder: Path) -> Ran:
        ran.append(command.argv[3])
        return checked(command, folder)

    monkeypatch.setattr(subjects, "checked", noted)
    monkeypatch.setattr(subjects, "_BLANK", Blank())
    made = context(tmp_path)
    for name in ("one", "other"):
        copy = subjects.Backstay().open(made.folder(name), made.image())
        checked(copy.backup(), copy.folder)
        found = made.folder(f"{name} back")
        checked(copy.restore(found), copy.folder)
        assert copy.restored(found).read_bytes() == made.image().read_bytes()
        assert copy.folder.joinpath("operator.key").stat().st_mode & 0o077 == 0
    assert ran == ["keygen", "init"]


def test_cost_by_size_is_measured_for_each_size(tmp_path: Path) -> None:
    made = context(tmp_path, Copier(BACKSTAY), Copier("restic"), repeat=2)
    assert {one.subject for one in sizes.run(made).entries} == {
        "1 MiB: backstay",
        "2 MiB: backstay",
    }
    made.scale = replace(made.scale, few=False)
    outcome = sizes.run(made)
    names = [f"{size} MiB: {name}" for size in (1, 2) for name in (BACKSTAY, "restic")]
    assert [entry.subject for entry in outcome.entries] == names
    assert [entry.median("mib") for entry in outcome.entries] == [1, 1, 2, 2]
    assert outcome.goals[2].measured == 1.0  # a plain copy stores as much for each byte
    assert outcome.wrong == outcome.failed == ()
    outcome = sizes.run(context(tmp_path, Copier(BACKSTAY, spoil=True)))
    assert code_of([outcome]) == 1
    assert outcome.entries == ()


def test_a_size_that_does_not_fit_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 << 20))
    outcome = sizes.run(context(tmp_path, Copier(BACKSTAY)))
    assert [entry.subject for entry in outcome.entries] == ["1 MiB: backstay"]
    assert any("2 MiB is left out" in note for note in outcome.notes)
    assert outcome.goals[0].verdict == "not measured"


def test_subjects_take_turns(tmp_path: Path) -> None:
    said: list[str] = []
    made = context(tmp_path, Copier("one"), Copier("other"), repeat=2)
    made.say = said.append
    initial.run(made)
    turns = [line for line in said if "one" in line or "other" in line]
    assert turns == ["turn 1: one", "turn 1: other", "turn 2: one", "turn 2: other"]


def test_peers_that_are_installed_bring_back_what_they_took(tmp_path: Path) -> None:
    from bench.peers import PEERS

    there = [peer for make in PEERS if not (peer := make()).missing()]
    outcome = initial.run(context(tmp_path, *there))
    assert outcome.wrong == ()
    assert outcome.failed == ()
    for peer in there:
        entry = outcome.entry(peer.name)
        assert entry is not None
        assert entry.median("stored")


def test_the_naive_copy_keeps_holes_and_odd_ends(tmp_path: Path) -> None:
    source, packed, found = (tmp_path / name for name in ("source", "packed", "found"))
    source.write_bytes(b"x" * 300_000 + bytes(600_000) + b"y" * 100_001 + bytes(5))
    naive.new_key(tmp_path / "key")
    key = (tmp_path / "key").read_bytes()
    asyncio.run(naive.copy(source, packed, key))
    asyncio.run(naive.back(packed, found, key))
    assert found.read_bytes() == source.read_bytes()
    assert packed.stat().st_size < 20_000


def test_our_own_copy_says_how_its_stages_spent_the_time(tmp_path: Path) -> None:
    from bench.subjects import Backstay

    outcome = initial.run(context(tmp_path, Backstay()))
    mine = outcome.entry(BACKSTAY)
    assert mine is not None, outcome.failed
    (sample,) = mine.samples
    assert list(sample.stages) == [
        *("scan", "decide", "cache", "compress", "encrypt", "ship", "commit")
    ]
    for shares in sample.stages.values():
        assert set(shares) == {"busy", "wait_in", "wait_out"}
        assert 0 <= sum(shares.values()) <= 1.001
    assert bottleneck(sample.stages) in sample.stages
