"""The measure the recogniser's tests use is right itself."""

import pytest

from tests.word_error import word_error_rate


@pytest.mark.parametrize(
    ("said", "heard", "rate"),
    [
        ("a b c", "a b c", 0),
        ("a b c d", "a x c", 0.5),
        ("a b", "", 1),
        ("a", "b a c", 2),
    ],
)
def test_errors_are_counted_per_word_that_was_said(said: str, heard: str, rate: float) -> None:
    assert word_error_rate(said, heard) == rate
