from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bench import cli
from bench.comparing.ranks import doubled_ranks, least_p, p_value, turns_needed
from bench.comparing.verdicts import Comparison, Line, Verdict, compare
from bench.record import Result, as_text
from bench.results import Entry, Outcome, Sample
from tests.bench.made_results import MACHINE, copying, live, result

FEW_VALUES = st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0]), min_size=1, max_size=5)
TIMES = st.lists(st.floats(0.5, 50.0), min_size=5, max_size=7)
NOISE = st.lists(st.floats(0.87, 1.14), min_size=5, max_size=5)
OPPOSITE = {
    Verdict.FASTER: Verdict.SLOWER,
    Verdict.SLOWER: Verdict.FASTER,
    Verdict.LESS: Verdict.MORE,
    Verdict.MORE: Verdict.LESS,
}


def run_of(ours: Sequence[float], peer: Sequence[float], *, peer_name: str = "restic") -> Result:
    entries = (
        Entry("backstay", tuple(Sample(one, stored=1000) for one in ours)),
        Entry("restic", tuple(Sample(one) for one in peer)),
    )
    return result(Outcome("initial", "t", entries, peer=peer_name))


def line(found: Comparison, subject: str, figure: str) -> Line:
    (one,) = (line for line in found.lines if (line.subject, line.figure) == (subject, figure))
    return one


@given(FEW_VALUES, FEW_VALUES)
def test_p_is_what_counting_all_groupings_gives(one: list[float], other: list[float]) -> None:
    ranks = doubled_ranks([*one, *other])
    middle = len(one) * sum(ranks) / len(ranks)
    groupings = [sum(choice) for choice in combinations(ranks, len(one))]
    observed = abs(sum(ranks[: len(one)]) - middle)
    far = sum(abs(total - middle) >= observed for total in groupings)
    assert p_value(one, other) == pytest.approx(far / len(groupings))


@given(
    st.lists(st.sampled_from([1.0, 1.1, 1.2, 2.0, 9.0]) | st.floats(1, 9), min_size=8, max_size=8),
    st.sampled_from([0.01, 0.03, 0.05, 0.2]),
)
def test_noise_alone_is_told_at_most_as_often_as_alpha_says(
    values: list[float], alpha: float
) -> None:
    """Of all ways to deal the same values out to two runs, at most alpha get a verdict."""
    told = ways = 0
    for chosen in combinations(range(8), 4):
        one = [values[at] for at in chosen]
        other = [value for at, value in enumerate(values) if at not in chosen]
        told += p_value(one, other) <= alpha
        ways += 1
    assert told <= alpha * ways


def test_how_many_turns_are_needed() -> None:
    assert turns_needed(0.05) == 4
    assert turns_needed(0.01) == 5
    assert least_p(3, 3) == 0.1
    assert least_p(5, 5) == pytest.approx(p_value([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]))
    assert p_value([], [1.0]) == 1.0


@given(TIMES, TIMES)
def test_a_file_does_not_differ_from_itself(ours: list[float], peer: list[float]) -> None:
    run = run_of(ours, peer)
    found = compare(run, run)
    assert {line.verdict for line in found.lines} == {Verdict.SAME}
    assert found.only_old == found.only_new == ()
    assert not found.slower


@given(TIMES, TIMES, TIMES, TIMES)
def test_the_other_way_round_all_is_opposite(
    one: list[float], one_peer: list[float], other: list[float], other_peer: list[float]
) -> None:
    old, new = run_of(one, one_peer), run_of(other, other_peer)
    for there, back in zip(compare(old, new).lines, compare(new, old).lines, strict=True):
        assert back.verdict is OPPOSITE.get(there.verdict, there.verdict)
        assert back.p == pytest.approx(there.p)
        assert back.change == pytest.approx(1 / there.change)


@given(NOISE, NOISE, NOISE, NOISE, st.floats(0.2, 5.0))
def test_twice_as_fast_is_found_in_five_turns_whatever_the_machine(
    one: list[float],
    one_peer: list[float],
    other: list[float],
    other_peer: list[float],
    slower_machine: float,
) -> None:
    old = run_of([10 * noise for noise in one], [20 * noise for noise in one_peer])
    new = run_of(
        [5 * slower_machine * noise for noise in other],
        [20 * slower_machine * noise for noise in other_peer],
    )
    told = line(compare(old, new), "backstay", "seconds")
    assert told.verdict is Verdict.FASTER
    assert told.against == "restic"
    back = compare(new, old)
    assert line(back, "backstay", "seconds").verdict is Verdict.SLOWER
    assert [one.figure for one in back.slower] == ["seconds"]


def test_too_few_turns_tell_nothing() -> None:
    old, new = run_of([10.0] * 3, [20.0] * 3), run_of([1.0] * 3, [20.0] * 3)
    found = compare(old, new)
    assert {line.verdict for line in found.lines} == {Verdict.FEW}
    assert found.tested == 0


def test_rates_are_better_when_they_are_greater() -> None:
    old, new = (
        result(live([50.0 + at for at in range(5)])),
        result(live([90.0 + at for at in range(5)])),
    )
    told = line(compare(old, new), "4k d1: nbdkit file", "rate")
    assert (told.verdict, told.against) == (Verdict.FASTER, "")
    ours = line(compare(old, new), "4k d1: backstay", "rate")
    assert (ours.verdict, ours.against) == (Verdict.SAME, "nbdkit file")  # both went up alike


def test_other_machines_are_compared_through_the_peer_or_not_at_all() -> None:
    old = run_of([10.0, 10.1, 10.2, 10.3, 10.4], [20.0] * 5)
    new = run_of([5.0, 5.1, 5.2, 5.3, 5.4], [40.0] * 5)
    new = replace(new, machine=replace(MACHINE, cpu="another"))
    found = compare(old, new)
    assert line(found, "backstay", "seconds").verdict is Verdict.FASTER
    assert line(found, "restic", "seconds").verdict is Verdict.MACHINES
    assert line(found, "backstay", "stored").verdict is Verdict.SAME
    without = compare(run_of([1.0] * 5, [1.0] * 5, peer_name=""), new)
    assert line(without, "backstay", "seconds").verdict is Verdict.MACHINES
    assert not without.slower


def test_what_differs_for_certain_but_by_nothing_is_no_difference() -> None:
    def stored(size: int) -> Result:
        return result(
            Outcome(
                "a", "t", (Entry("backstay", tuple(Sample(1.0, stored=size) for _ in "12345")),)
            )
        )

    for size, verdict in ((100_500, Verdict.SAME), (150_000, Verdict.MORE), (50_000, Verdict.LESS)):
        found = compare(stored(100_000), stored(size))
        assert line(found, "backstay", "stored").verdict is verdict


def test_what_only_one_run_has_is_named() -> None:
    old, new = result(copying(), live()), result(copying(scenario="restore"), live())
    found = compare(old, new)
    assert "initial" in found.only_old
    assert "restore: restic" in found.only_new


def _invoke(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(cli.bench, ["compare", *arguments])
    return found.exit_code, found.stdout, found.stderr


def _files(folder: Path, *runs: Result) -> list[str]:
    paths = [folder / f"{number}.json" for number, _ in enumerate(runs)]
    for path, run in zip(paths, runs, strict=True):
        path.write_text(as_text(run))
    return [str(path) for path in paths]


def test_the_command_says_it_and_fails_only_if_asked(tmp_path: Path) -> None:
    quick, slow = [5.0, 5.1, 5.2, 5.3, 5.4], [10.0, 10.1, 10.2, 10.3, 10.4]
    files = _files(tmp_path, run_of(quick, quick), run_of(slow, quick))
    code, text, _ = _invoke(*files)
    assert code == 0
    assert "slower" in text
    assert "beside restic" in text
    assert _invoke(*files, "--fail-slower")[0] == 1
    assert _invoke(*reversed(files), "--fail-slower")[0] == 0
    found = json.loads(_invoke(*files, "--json")[1])
    assert found["slower"] == 1
    assert found["lines"][0]["verdict"] == "slower"
    files = _files(tmp_path, run_of(quick[:2], quick[:2]), run_of(slow[:2], quick[:2]))
    code, text, _ = _invoke(*files, "--fail-slower")
    assert (code, "--repeat 5" in text) == (0, True)
    assert "2 old and 2 new turns can reach p = 0.333 at best, never 0.01" in text
    code, text, _ = _invoke(*files, "--alpha", "0.334", "--json")  # as it advises
    assert json.loads(text)["few"] == []
    _, text, _ = _invoke(*files, "--json")
    assert json.loads(text)["few"] == [
        {"turns": [2, 2], "least_p": pytest.approx(1 / 3), "needed": 5}
    ]


def test_wrong_files_and_other_sizes_end_with_code_2(tmp_path: Path) -> None:
    one, other = _files(tmp_path, result(copying()), result(copying(), content=9.0))
    code, _, said = _invoke(one, other)
    assert (code, "content 64 and 9" in said) == (2, True)
    assert _invoke(one, other, "--any-size")[0] == 0
    (tmp_path / "odd.json").write_text("{}")
    code, _, said = _invoke(one, str(tmp_path / "odd.json"))
    assert (code, "odd.json: format" in said) == (2, True)
    assert _invoke(one, str(tmp_path / "none.json"))[0] == 2


def test_a_report_is_drawn_anew_from_the_file(tmp_path: Path) -> None:
    (file,) = _files(tmp_path, result(Outcome("a", "A title", ())))
    found = CliRunner().invoke(cli.bench, ["report", file, "--out", str(tmp_path / "new")])
    again = CliRunner().invoke(
        cli.bench, ["report", file, "--out", str(tmp_path / "new"), "--json"]
    )
    assert str(tmp_path / "new" / "report.html") in json.loads(again.output)["written"]
    assert found.exit_code == 0
    assert "A title" in (tmp_path / "new" / "report.html").read_text()
    (tmp_path / "wrong.json").write_text("[]")
    found = CliRunner().invoke(cli.bench, ["report", str(tmp_path / "wrong.json")])
    assert found.exit_code == 2
