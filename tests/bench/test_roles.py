from __future__ import annotations

import pytest
from rich.console import Console

from bench.peers import PEERS
from bench.report import show
from bench.results import Entry, Outcome, Sample
from bench.roles import Role, beside, held_back, of_ceiling, parts, role_of, to_peer
from bench.table import limits, narrow, table_of
from tests.bench.made_results import copying, live, sized


@pytest.mark.parametrize(
    ("subject", "load", "name", "role"),
    [
        ("backstay", "", "backstay", Role.OURS),
        ("4k writes + flush d1: backstay", "4k writes + flush d1", "backstay", Role.OURS),
        ("256k reads, nbdcopy: backstay", "256k reads, nbdcopy", "backstay", Role.OURS),
        ("256k reads, nbdcopy: nbdkit file", "256k reads, nbdcopy", "nbdkit file", Role.PEER),
        ("backstay: azurite", "", "backstay: azurite", Role.OURS),
        ("puts alone: azurite", "", "puts alone: azurite", Role.CEILING),
        ("ceiling: zstd 1, 2 threads", "", "ceiling: zstd 1, 2 threads", Role.CEILING),
        ("plain: cp --sparse=always", "", "plain: cp --sparse=always", Role.CEILING),
        ("memory of intake", "", "memory of intake", Role.MEMORY),
        ("500 machines", "", "500 machines", Role.OURS),
    ],
)
def test_names_say_who_is_who(subject: str, load: str, name: str, role: Role) -> None:
    assert parts(subject) == (load, name)
    assert role_of(Outcome("a", "A", ()), subject) is role


def test_all_peers_are_known_as_such() -> None:
    outcome = Outcome("a", "A", ())
    assert {role_of(outcome, peer.name) for peer in PEERS} == {Role.PEER}


def test_an_entry_stands_beside_the_peer_under_its_load() -> None:
    outcome = live()
    found = beside(outcome, "64k d8: backstay", "nbdkit file")
    assert found is not None
    assert found.subject == "64k d8: nbdkit file"
    assert beside(outcome, "64k d8: backstay", "") is None
    assert [to_peer(outcome, entry) for entry in outcome.entries] == [0.5, None, 0.5, None, None]
    assert [to_peer(sized(), entry) for entry in sized().entries] == [3.0, None] * 3


def test_share_of_the_ceiling_and_times_the_peer() -> None:
    outcome = copying()
    mine, restic, ceiling = outcome.entries
    assert of_ceiling(outcome, mine) == pytest.approx(1 / 2.1)
    assert of_ceiling(outcome, ceiling) is None
    assert to_peer(outcome, mine) == pytest.approx(6 / 2.1)
    assert to_peer(outcome, restic) is None


def test_rates_and_times_are_not_held_against_each_other() -> None:
    rate = Entry("backstay", (Sample(5.0, figures={"rate": 10.0}),))
    timed = Entry("restic", (Sample(5.0),))
    outcome = Outcome("a", "A", (rate, timed), peer="restic")
    assert to_peer(outcome, rate) is None


def test_the_busiest_stage_holds_it_back() -> None:
    outcome = copying()
    assert held_back(outcome.entries[0]) == ("compress", 0.97)
    assert held_back(outcome.entries[1]) is None
    assert limits(outcome) == (
        "ceiling: zstd",
        "backstay: held back by: compress (97% busy); others: capture 20%",
    )
    idle = Sample(1.0, stages={"ship": {"busy": 0.1, "wait_in": 0.9}})
    calm = Outcome("a", "A", (Entry("backstay", (idle,)),))
    assert limits(calm) == ("backstay: no stage holds it back: the busiest is ship (10% busy)",)


def test_the_table_has_the_three_columns() -> None:
    found = table_of(copying())
    at = {heading: number for number, heading in enumerate(found.headings)}
    cells = found.rows[0].cells
    assert cells[at["speed, of restic"]] == "2.86"
    assert cells[at["of ceiling"]] == "48%"
    assert cells[at["held back by"]] == "compress 97%"
    assert "time ×" not in at


def test_a_wide_table_becomes_several_and_loses_nothing() -> None:
    table = table_of(copying())
    found = narrow(table, 50)
    assert len(found) > 1
    assert tuple(heading for one in found for heading in one.headings) == table.headings
    for number, row in enumerate(table.rows):
        assert tuple(cell for one in found for cell in one.rows[number].cells) == row.cells
    assert narrow(table, 1000) == [table]
    console = Console(width=50)
    with console.capture() as capture:
        show(console, copying())
    assert all(len(line) <= 50 for line in capture.get().splitlines())
    assert narrow(table_of(Outcome("a", "A", ())), 80)[0].rows == ()
