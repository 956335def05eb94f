"""How late the replica is."""

import pytest

from serve_app.admission.pressure import LAG_S, SOJOURN_S, WINDOW_S, Delays, Pressure


def after(*delays: Delays, every_s: float = 0.2) -> Pressure:
    pressure = Pressure()
    for number, each in enumerate(delays):
        pressure.measured(number * every_s, each)
    return pressure


CALM = Delays(0.001, 0.005)


def test_a_single_late_moment_is_no_overload() -> None:
    assert after(*[CALM] * 5, Delays(0.5, 0.5), *[CALM] * 2).value < 0.1


@pytest.mark.parametrize(
    ("late", "reason"),
    [(Delays(LAG_S, 0.0), "busy_ingress"), (Delays(0.0, SOJOURN_S), "slow_models")],
)
def test_a_delay_that_stays_is_one(late: Delays, reason: str) -> None:
    pressure = after(CALM, *[late] * 7)
    assert pressure.value >= 1 and pressure.reason == reason


def test_it_takes_a_second_to_rise_and_none_to_fall() -> None:
    late = Delays(1.0, 1.0)
    beats = int(WINDOW_S / 0.2) - 1
    assert after(*[CALM] * 10, *[late] * beats).value < 1
    assert after(*[CALM] * 10, *[late] * (beats + 3)).value > 1
    assert after(*[late] * 50, CALM).value < 0.5
