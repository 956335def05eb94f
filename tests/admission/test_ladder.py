"""What is left out, step by step, and how soon nothing is any more."""

from hypothesis import given
from hypothesis import strategies as st

from serve_app.admission.ladder import (
    CALM_S,
    DOWN_S,
    FORGET_S,
    HIGH,
    LOW,
    MAX_CALM_S,
    UP_S,
    Ladder,
    Level,
)

SAMPLE_S = 0.2


class Climb:
    """A ladder and its clock."""

    def __init__(self) -> None:
        self.ladder = Ladder()
        self.now = 1000.0
        self.levels: list[Level] = []

    def at(self, pressure: float, seconds: float) -> Level:
        for _ in range(round(seconds / SAMPLE_S)):
            self.now += SAMPLE_S
            self.levels.append(self.ladder.on(pressure, self.now))
        return self.ladder.level


def test_up_a_step_a_second_and_no_further_than_the_top() -> None:
    climb = Climb()
    assert climb.at(HIGH, SAMPLE_S) == 1
    assert climb.at(9.0, 0.8) == 1
    assert climb.at(9.0, 0.4) == 2
    assert climb.at(9.0, 60) is Level.FEWEST


def test_between_low_and_high_everything_stays_as_it_is() -> None:
    climb = Climb()
    climb.at(HIGH, 2)
    level = climb.ladder.level
    assert climb.at((LOW + HIGH) / 2, 60) is level


def test_two_seconds_after_the_load_all_is_normal() -> None:
    climb = Climb()
    climb.at(HIGH, 60)
    assert climb.at(0.0, 2.0) is Level.NORMAL


def test_a_descent_that_came_too_early_makes_the_next_one_wait_longer() -> None:
    climb = Climb()
    waits = []
    for _ in range(8):
        while climb.ladder.level is Level.NORMAL:
            climb.at(HIGH, SAMPLE_S)
        before = climb.now
        while climb.ladder.level:
            climb.at(0.0, SAMPLE_S)
        waits.append(climb.now - before)
    assert waits == sorted(waits)
    assert waits[0] <= CALM_S + 2 * SAMPLE_S and waits[-1] >= MAX_CALM_S
    climb.at(0.0, FORGET_S + 1)
    climb.at(HIGH, SAMPLE_S)
    assert climb.at(0.0, CALM_S + 2 * SAMPLE_S) is Level.NORMAL


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), max_size=200))
def test_it_moves_one_step_at_a_time_and_never_against_the_pressure(
    course: list[tuple[float, float]],
) -> None:
    ladder, now, before, up_at, down_at = Ladder(), 0.0, Level.NORMAL, -9.0, -9.0
    for pressure, seconds in course:
        now += seconds
        level = ladder.on(pressure, now)
        assert abs(level - before) <= 1
        if level > before:
            assert pressure >= HIGH and now - up_at >= UP_S - 1e-6
            up_at = now
        if level < before:
            assert pressure < LOW and now - down_at >= DOWN_S - 1e-6
            down_at = now
        before = level
    now += FORGET_S
    for _ in range(200):
        now += SAMPLE_S
        ladder.on(0.0, now)
    assert ladder.level is Level.NORMAL
