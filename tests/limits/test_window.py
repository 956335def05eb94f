"""Requests of a sliding minute."""

import hypothesis.strategies as st
from hypothesis import given

from serve_app.limits.window import WINDOW_S, RequestWindow

GAPS = st.lists(st.floats(0, 90, allow_nan=False), min_size=1, max_size=200)


def test_a_minute_is_full_and_fades_out() -> None:
    window = RequestWindow()
    for _ in range(10):
        assert window.fits(10, 0.0)
        window.add(0.0)
    assert not window.fits(10, 59.0)
    assert not window.fits(10, 60.0)
    assert window.fits(10, 67.0), "a tenth of the minute before has faded out"
    assert window.used(120.0) == 0


def test_the_wait_is_long_enough_and_not_a_second_longer() -> None:
    window = RequestWindow()
    for at in range(10):
        window.add(float(at))
    wait = window.wait_s(10, 20.0)
    assert window.fits(10, 20.0 + wait)
    assert not window.fits(10, 20.0 + wait - 1)
    assert window.used(20.0 + window.reset_s(20.0)) == 0


def test_what_others_have_used_fades_out_too() -> None:
    window = RequestWindow()
    window.add(0.0)
    window.observed(8.0, 1.0)
    assert window.used(1.0) == 8.0
    window.observed(8.0, 1.0)
    assert window.used(1.0) == 8.0, "the same observation counts once"
    assert window.used(31.0) == 1 + 3.5
    assert window.used(61.0) < 1


@given(GAPS, st.integers(1, 20))
def test_at_most_twice_the_limit_passes_in_any_minute(gaps: list[float], most: int) -> None:
    """The estimate assumes that a minute's requests came evenly."""
    window, now, taken = RequestWindow(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if window.fits(most, now):
            window.add(now)
            taken.append(now)
    for at in taken:
        assert sum(at <= it < at + WINDOW_S for it in taken) <= 2 * most


@given(GAPS)
def test_what_is_used_is_never_negative_and_never_forgotten_at_once(gaps: list[float]) -> None:
    window, now = RequestWindow(), 0.0
    for gap in gaps:
        now += gap
        before = window.used(now)
        window.add(now)
        assert window.used(now) >= before + 1 - 1e-9
        assert window.used(now + 1) >= 0
