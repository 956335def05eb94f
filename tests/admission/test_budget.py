"""Whether one more session fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.admission.budget import DEARER, LEARN_FROM, NOTHING, Budget, Shares

GUESS = Shares(0.002, 0.001, 0.001)
FULL_AFTER = 374
"""Sessions of 0.2 % that fill 75 % together, at nothing measured: one less than 375, for the one
that asks."""


def admitted(budget: Budget, asked: int, unseen: int = 0) -> int:
    """How many of so many at once get in."""
    before = unseen
    for _ in range(asked):
        unseen += budget.has_room(unseen)
    return unseen - before


def test_those_who_come_at_once_are_counted_before_they_show() -> None:
    assert admitted(Budget(0.75, GUESS), 1000) in (FULL_AFTER, FULL_AFTER + 1)


def test_what_is_used_leaves_less_room() -> None:
    budget = Budget(0.75, GUESS)
    budget.measured(Shares(0.55, 0.1, 0.1), 100, unseen=1)
    assert 95 <= admitted(budget, 1000) <= 100


@pytest.mark.parametrize("full", [Shares(0.76, 0, 0), Shares(0, 0.76, 0), Shares(0, 0, 0.76)])
def test_each_resource_alone_is_enough_to_be_full(full: Shares) -> None:
    budget = Budget(0.75, GUESS)
    budget.measured(full, 10, 0)
    assert not budget.has_room(0)


def test_it_learns_what_a_session_costs() -> None:
    budget = Budget(0.75, GUESS)
    for _ in range(200):
        budget.measured(Shares(0.05, 0.0, 0.0), 0, 0)
    for _ in range(200):
        budget.measured(Shares(0.05 + 40 * 0.01, 0.04, 0.02), 40, 0)
    assert budget.cost.node == pytest.approx(0.01, rel=0.01)
    assert 25 <= admitted(budget, 1000) <= 30


def test_few_sessions_and_new_ones_teach_nothing() -> None:
    budget = Budget(0.75, GUESS)
    budget.measured(Shares(0.9, 0.9, 0.9), LEARN_FROM - 1, 0)
    budget.measured(Shares(0.9, 0.9, 0.9), 100, 1)
    assert budget.cost == GUESS


def test_a_noisy_neighbour_does_not_become_the_cost_of_a_session_for_long() -> None:
    budget = Budget(0.75, GUESS)
    for _ in range(25):
        budget.measured(Shares(1.0, 0.02, 0.02), LEARN_FROM, 0)
    assert not budget.has_room(0)
    for _ in range(60):
        budget.measured(Shares(0.04, 0.02, 0.02), LEARN_FROM, 0)
    assert admitted(budget, 1000) > 250


shares = st.builds(Shares, *(st.floats(0, 1) for _ in NOTHING))
measurements = st.lists(st.tuples(shares, st.integers(0, 2000), st.integers(0, 50)), max_size=50)


@given(measurements, st.floats(0.1, 1), st.integers(0, 500))
def test_the_share_is_never_promised_away(
    seen: list[tuple[Shares, int, int]], share: float, asked: int
) -> None:
    """At the costs that are known, those admitted fit, whatever was measured before."""
    budget = Budget(share, GUESS)
    for used, sessions, unseen in seen:
        budget.measured(used, sessions, unseen)
    new = admitted(budget, asked)
    for now, cost, guess in zip(budget.used, budget.cost, GUESS, strict=True):
        assert new == 0 or now + new * cost <= share + 1e-9
        assert 0 < cost <= guess * DEARER + 1e-9
