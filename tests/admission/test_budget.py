"""Whether one more session fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.admission.budget import BASE_S, DEARER, LEARN_FROM, NOTHING, Budget, Shares

GUESS = Shares(0.002, 0.001, 0.001)
SHARE = 0.75
SAMPLE_S = 0.2


class Measured:
    """A budget and its clock."""

    def __init__(self) -> None:
        self.budget = Budget(SHARE, GUESS)
        self.now = 0.0

    def at(
        self, used: Shares, sessions: int = 0, unseen: int = 0, seconds: float = 2 * BASE_S
    ) -> None:
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            self.budget.measured(self.now, used, sessions, unseen)


def admitted(budget: Budget, asked: int, unseen: int = 0) -> int:
    """How many get in when `asked` come at once."""
    before = unseen
    for _ in range(asked):
        unseen += budget.has_room(unseen)
    return unseen - before


def test_those_who_come_at_once_are_counted_before_they_show() -> None:
    assert admitted(Budget(SHARE, GUESS), 1000) == pytest.approx(SHARE / GUESS.node, abs=1)


def test_what_is_used_leaves_less_room() -> None:
    it = Measured()
    it.at(Shares(0.55, 0.1, 0.1), LEARN_FROM - 1)
    assert admitted(it.budget, 1000) == pytest.approx(99, abs=2)


@pytest.mark.parametrize("full", [Shares(0.76, 0, 0), Shares(0, 0.76, 0), Shares(0, 0, 0.76)])
def test_each_resource_alone_is_enough_to_be_full(full: Shares) -> None:
    it = Measured()
    it.at(full, 10)
    assert not it.budget.has_room(0)


def test_it_learns_what_a_session_costs() -> None:
    it = Measured()
    it.at(Shares(0.05, 0.0, 0.0), seconds=40)
    it.at(Shares(0.05 + 40 * 0.01, 0.04, 0.02), 40, seconds=40)
    assert it.budget.cost.node == pytest.approx(0.01, rel=0.01)
    assert admitted(it.budget, 1000) == pytest.approx(30, abs=2)


def test_few_sessions_teach_nothing() -> None:
    it = Measured()
    it.at(Shares(0.9, 0.9, 0.9), LEARN_FROM - 1)
    it.at(Shares(0.9, 0.9, 0.9), 100, unseen=100 - LEARN_FROM + 1)
    assert it.budget.cost == GUESS


def test_while_some_do_not_show_yet_a_session_can_only_turn_out_dearer() -> None:
    it = Measured()
    it.at(NOTHING)
    it.at(Shares(0.01, 0.01, 0.01), 100, unseen=50)
    assert it.budget.cost == GUESS
    it.at(Shares(0.6, 0.01, 0.01), 100, unseen=50)
    assert it.budget.cost.node == pytest.approx(0.006, rel=0.01)
    assert admitted(it.budget, 1000, unseen=50) < 20


def test_the_start_of_the_server_refuses_nobody() -> None:
    it = Measured()
    it.at(Shares(0.9, 0.0, 0.0), seconds=BASE_S - 1)
    assert admitted(it.budget, 1000) > 300


def test_a_program_that_starts_is_no_reason_to_refuse_and_one_that_runs_is() -> None:
    it = Measured()
    idle, spike = Shares(0.1, 0.0, 0.0), Shares(0.9, 0.0, 0.0)
    it.at(idle)
    room = admitted(it.budget, 1000)
    it.at(spike, seconds=BASE_S - 0.4)
    assert admitted(it.budget, 1000) == room
    it.at(spike, seconds=0.8)
    assert admitted(it.budget, 1000) == 0
    it.at(idle, seconds=SAMPLE_S)
    assert admitted(it.budget, 1000) == room, "and the next moment it is over"


def test_sessions_that_begin_to_show_are_not_counted_twice() -> None:
    it = Measured()
    it.at(Shares(0.1, 0.0, 0.0))
    room = admitted(it.budget, 1000)
    for shown in range(0, 101, 10):
        it.at(Shares(0.1 + shown * GUESS.node, 0, 0), 100, unseen=100 - shown, seconds=0.2)
        assert admitted(it.budget, 1000, unseen=100 - shown) == pytest.approx(room - 100, abs=2)


def test_who_leaves_makes_room_at_once() -> None:
    it = Measured()
    it.at(Shares(0.7, 0.0, 0.0), 300, unseen=1)
    few = admitted(it.budget, 1000)
    it.at(Shares(0.5, 0.0, 0.0), 200, unseen=1, seconds=SAMPLE_S)
    assert admitted(it.budget, 1000) == pytest.approx(few + 100, abs=2)


shares = st.builds(Shares, *(st.floats(0, 1) for _ in NOTHING))
measurements = st.lists(st.tuples(shares, st.integers(0, 2000), st.integers(0, 50)), max_size=50)


@given(measurements, st.floats(0.1, 1), st.integers(0, 500))
def test_the_share_is_never_promised_away(
    seen: list[tuple[Shares, int, int]], share: float, asked: int
) -> None:
    """Those admitted fit at the known costs. Once the load is steady, all of it is counted, no
    matter what was measured before."""
    budget, now = Budget(share, GUESS), 0.0
    for used, sessions, unseen in seen:
        now += SAMPLE_S
        budget.measured(now, used, sessions, unseen)
    if seen:
        used, sessions, unseen = seen[-1]
        budget.measured(now + 2 * BASE_S, used, sessions, unseen)
    new = admitted(budget, asked)
    for used_now, cost, guess in zip(budget.used, budget.cost, GUESS, strict=True):
        assert new == 0 or used_now + new * cost <= share + 1e-9
        assert 0 < cost <= guess * DEARER + 1e-9


def test_with_many_sessions_what_they_do_not_explain_counts_at_once() -> None:
    """Or a ramp would get in on a guess that is too low."""
    it = Measured()
    it.at(Shares(0.1, 0.0, 0.0))
    it.at(Shares(0.74, 0.0, 0.0), 100, unseen=50, seconds=1.4)
    assert admitted(it.budget, 1000, unseen=50) == 0


def test_sessions_that_are_silent_for_a_while_do_not_become_cheap() -> None:
    it = Measured()
    it.at(Shares(0.1, 0.0, 0.0))
    it.at(Shares(0.1 + 100 * 0.004, 0.0, 0.0), 100)
    it.at(Shares(0.1, 0.0, 0.0), 100, seconds=5)
    assert it.budget.cost.node > 0.0035
    it.at(Shares(0.1, 0.0, 0.0), 100, seconds=3600)
    assert it.budget.cost.node < 0.002, "in an hour they do"
