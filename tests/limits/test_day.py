"""The accounting of a day's quota: random work, and what must hold after each step."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve_app.limits.day import Day, Reservation

AMOUNTS = st.floats(0, 1000, allow_nan=False)


def test_what_is_reserved_is_not_free_and_what_is_settled_is() -> None:
    day = Day()
    first = Reservation(day, 60)
    day.add(30, 1)
    assert (day.free(100, 1), day.left(100, 1)) == (10, 70)
    first.settle()
    first.settle()
    assert (day.free(100, 1), day.reserved) == (70, 0)


def test_a_new_day_begins_with_nothing_used_and_with_what_is_held() -> None:
    day = Day()
    day.add(50, 1)
    Reservation(day, 60)
    assert (day.used(2), day.reserved) == (0, 60)
    day.observed(40, 1)
    assert day.used(2) == 0, "what was read late is of yesterday"
    day.add(5, 1)
    assert day.used(2) == 5, "a clock that is set back does not bring yesterday back"


def test_what_others_write_counts_once() -> None:
    day = Day()
    day.add(50, 1)
    for _ in range(3):
        day.observed(70, 1)
    day.observed(60, 1)
    assert day.used(1) == 70


class Accounting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.day = Day()
        self.today = 1
        self.open: list[tuple[Reservation, float]] = []
        self.used = 0.0

    @rule(amount=AMOUNTS)
    def reserve(self, amount: float) -> None:
        self.open.append((Reservation(self.day, amount), amount))

    @rule(at=st.integers(0, 100), times=st.integers(1, 3))
    def settle(self, at: int, times: int) -> None:
        if self.open:
            reservation, _ = self.open.pop(at % len(self.open))
            for _ in range(times):
                reservation.settle()

    @rule(amount=AMOUNTS)
    def use(self, amount: float) -> None:
        self.day.add(amount, self.today)
        self.used += amount

    @rule(used=AMOUNTS)
    def observe(self, used: float) -> None:
        self.day.observed(used, self.today)
        self.used = max(self.used, used)

    @rule()
    def midnight(self) -> None:
        self.today += 1
        self.used = 0.0

    @invariant()
    def reserved_is_the_sum_of_what_is_open(self) -> None:
        assert abs(self.day.reserved - sum(amount for _, amount in self.open)) < 1e-6

    @invariant()
    def used_is_what_was_used(self) -> None:
        assert abs(self.day.used(self.today) - self.used) < 1e-6

    @invariant()
    def nothing_is_negative(self) -> None:
        assert self.day.reserved >= 0
        assert 0 <= self.day.free(1000, self.today) <= self.day.left(1000, self.today) <= 1000


TestAccounting = Accounting.TestCase
