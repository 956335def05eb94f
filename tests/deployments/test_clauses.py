"""Text split into clauses, however it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.speaker.clauses import ClauseSplitter, speakable


def clauses(*deltas: str) -> list[str]:
    splitter = ClauseSplitter()
    return [clause for delta in deltas for clause in splitter.push(delta)] + splitter.flush()


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (
            ["Hello the", "re, how are you? I", " am well."],
            ["Hello there,", " how are you?", " I am well."],
        ),
        (["It costs 3", ".", "5 euros. Good"], ["It costs 3.5 euros.", " Good"]),
        (["Ask Dr. Smith or J. Doe. Now"], ["Ask Dr. Smith or J. Doe.", " Now"]),
        (["Yes. So, later, commas, wait. "], ["Yes.", " So, later, commas, wait.", " "]),
        (["你好。很好！"], ["你好。", "很好！"]),
        (["Line one\nline two"], ["Line one\n", "line two"]),
        ([""], []),
    ],
)
def test_text_is_cut_into_clauses_as_it_comes(deltas: list[str], expected: list[str]) -> None:
    assert clauses(*deltas) == expected


@given(st.lists(st.text("ab ,.!?\n。3", max_size=12)))
def test_nothing_is_lost_however_it_comes(deltas: list[str]) -> None:
    assert "".join(clauses(*deltas)) == "".join(deltas)


def test_text_without_any_mark_is_cut_all_the_same() -> None:
    assert max(map(len, clauses("word " * 200))) <= 241
    assert max(map(len, clauses("x" * 1000))) <= 241


@pytest.mark.parametrize(
    ("clause", "said"),
    [
        ("**Yes**, `it` is.", "Yes , it is."),
        ("- see [this page](http://x.y)", "see this page"),
        ("...", ""),
        (" \n", ""),
    ],
)
def test_what_is_for_the_eye_is_not_spoken(clause: str, said: str) -> None:
    assert speakable(clause) == said
