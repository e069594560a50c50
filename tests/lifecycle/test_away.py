"""A source's lifecycle follows the vault: from every situation, whatever the vault says."""

from __future__ import annotations

from itertools import product

import pytest

from pipeline.control.model import Direction, State
from pipeline.lifecycle.away import toward
from pipeline.lifecycle.events import Happening
from pipeline.lifecycle.rules import Situation, delivers, step
from stages.vault.failover_state import Phase

PROTECTED = (
    State.INITIAL_REPLICATION,
    State.FINALIZING,
    State.REPLICATING,
    State.WAITING_FOR_RESYNC,
    State.RESYNCHRONIZING,
    State.CRITICAL,
    State.SUSPENDED,
    State.RESYNC_SUSPENDED,
    State.PREPARED,
)
AWAY = (State.FAILING_OVER, State.COMMIT_PENDING)
THERE = {
    Phase.OPEN: State.COMMIT_PENDING,
    Phase.COMMITTED: State.COMMITTED,
    Phase.CLOSED: State.MIGRATED,
}
SITUATIONS = [Situation(*one) for one in product(State, Direction)]


def after(now: Situation, phase: Phase, *, moved: bool = True) -> Situation:
    for happening in toward(now, phase, moved=moved):
        now = step(now, happening).then  # each of them is legal
    return now


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("now", SITUATIONS, ids=str)
def test_every_step_is_legal_and_the_end_is_stable(
    now: Situation, phase: Phase, *, moved: bool
) -> None:
    then = after(now, phase, moved=moved)
    assert toward(then, phase, moved=moved) == () or then == now
    if phase.is_over and then != now:
        assert not delivers(then)  # what is away is never shipped from here


@pytest.mark.parametrize("phase", THERE)
@pytest.mark.parametrize("state", [*PROTECTED, *AWAY])
def test_a_source_gets_where_the_vault_is(state: State, phase: Phase) -> None:
    assert after(Situation(state), phase) == Situation(THERE[phase])


@pytest.mark.parametrize("state", [*PROTECTED, *AWAY, State.COMMITTED])
def test_a_reprotected_one_is_replicated_in_the_other_direction(state: State) -> None:
    then = after(Situation(state), Phase.REPROTECTED)
    assert then == Situation(State.REPLICATING, Direction.REVERSE)


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.CANCELLED])
def test_none_in_the_vault(phase: Phase) -> None:
    for state in AWAY:
        assert toward(Situation(state), phase, moved=False) == (Happening.FAILOVER_CANCELLED,)
    for state in (*PROTECTED, State.COMMITTED):  # not recorded yet, or not to be undone
        assert toward(Situation(state), phase, moved=False) == ()
    reverse = Situation(State.REPLICATING, Direction.REVERSE)
    assert toward(reverse, phase, moved=False) == ()  # records that are gone bring nothing home
    for away in (reverse, Situation(State.COMMITTED)):
        assert after(away, phase) == Situation(State.REPLICATING)  # production came home


def test_home_and_away_again_while_nobody_looked() -> None:
    reverse = Situation(State.REPLICATING, Direction.REVERSE)
    assert after(reverse, Phase.OPEN) == Situation(State.COMMIT_PENDING)


@pytest.mark.parametrize("state", [State.DISABLED, State.DISABLING, State.MIGRATED])
@pytest.mark.parametrize("phase", Phase)
def test_what_is_not_protected_stays(state: State, phase: Phase) -> None:
    assert toward(Situation(state), phase, moved=True) == ()
