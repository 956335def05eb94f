"""Cutting, joining and agreeing: no word lost, none doubled."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.interfaces import RATE, Word
from deployments.transcriber.token_clock import FRAME, PAD, WORD, TokenClock
from deployments.transcriber.voxtral import choices
from deployments.transcriber.windows import (
    LONGEST,
    OVERLAP,
    ModelWindow,
    Spelled,
    agreed,
    cut,
    join,
    spell,
    timed,
)


def speech(seconds: float, silences: list[float]) -> np.ndarray:
    """Noise with 0.3 s of silence at each of the given places."""
    audio = np.random.default_rng(0).standard_normal(int(seconds * RATE)).astype(np.float32)
    for at in silences:
        audio[int(at * RATE) : int((at + 0.3) * RATE)] *= 0.001
    return audio


def test_windows_end_in_silence_where_there_is_some() -> None:
    audio = speech(70, [25.0, 50.0])
    first, second, third = cut(audio)
    assert 25.0 <= first.end / RATE <= 25.3 and first.end == second.start
    assert 50.0 <= second.end / RATE <= 50.3 and third.end == len(audio)


def test_without_silence_windows_overlap() -> None:
    windows = cut(speech(65, []))
    assert windows[0] == ModelWindow(0, LONGEST)
    assert windows[1].start == LONGEST - OVERLAP


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 100), st.lists(st.floats(0, 99), max_size=8))
def test_windows_cover_everything_and_none_is_too_long(seconds: float, at: list[float]) -> None:
    audio = speech(seconds, [place for place in at if place < seconds])
    windows = cut(audio)
    assert windows[0].start == 0 and windows[-1].end == len(audio)
    assert all(0 < window.end - window.start <= LONGEST for window in windows)
    for one, next_ in pairwise(windows):
        assert one.end - OVERLAP <= next_.start <= one.end


def words(count: int, offset: int = 0) -> list[Word]:
    """`count` distinct words, one each half second."""
    half = RATE // 2
    return [Word(f"w{offset + n}", n * half, (n + 1) * half, 1.0) for n in range(count)]


@given(st.integers(1, 40), st.booleans(), st.booleans(), st.integers(-6000, 6000))
def test_a_word_in_both_windows_is_said_once(
    count: int, last: bool, first: bool, drift: int
) -> None:
    """Four words are in the overlap; the border may have spoiled the last of the one window and
    the first of the other, and their times may be off."""
    all_words = words(count + 10)
    overlap = ModelWindow(count * RATE // 2, count * RATE // 2 + 2 * RATE)
    before, after = all_words[: count + 4], all_words[count:]
    after = [word._replace(start=max(0, word.start + drift)) for word in after]
    if last:
        before[-1] = before[-1]._replace(text="spoiled")
    if first:
        after[0] = after[0]._replace(text="spoiled")
    joined = [word.text for word in join(before, after, overlap)]
    assert joined == [word.text for word in all_words]


def test_windows_that_share_no_word_meet_in_the_middle() -> None:
    before = [Word("a", 0, 1000, 1.0), Word("wrong", 30_000, 32_000, 1.0)]
    after = [Word("other", 16_000, 17_000, 1.0), Word("b", 40_000, 41_000, 1.0)]
    joined = join(before, after, ModelWindow(16_000, 48_000))
    assert [word.text for word in joined] == ["a", "wrong", "b"]


def test_case_and_marks_do_not_part_what_agrees() -> None:
    assert agreed(["Hello,", "world"], ["hello", "World.", "again"]) == 2
    assert agreed(["a", "b"], ["a", "c"]) == 1 and agreed([], ["a"]) == 0


def test_words_are_placed_in_what_can_be_heard() -> None:
    audio = np.concatenate([np.zeros(RATE), np.ones(2 * RATE), np.zeros(RATE)]).astype(np.float32)
    first, second = timed(
        [Spelled("aa", 1.0), Spelled("bb", 0.5)], ModelWindow(100, 4 * RATE), audio
    )
    assert first.start == 100 + RATE and second.end == 100 + 3 * RATE
    assert first.end == second.start == 100 + 2 * RATE


TEXT = {1000: " hel", 1001: "lo", 1002: " wor", 1003: "ld", 1004: "!"}


def text(tokens: object) -> str:
    return "".join(TEXT[token] for token in tokens)  # type: ignore[attr-defined]


def test_tokens_are_spelled_as_words_with_their_confidence() -> None:
    spelled = spell([1000, 1001, 1002, 1003, 1004], [0.0, 0.0, -1.0, -1.0, -1.0], text)
    assert spelled == [Spelled("hello", 1.0), Spelled("world!", 0.368)]


def test_the_clock_tells_words_by_their_tokens() -> None:
    clock = TokenClock(text, start=3200)
    for token in (PAD, PAD, WORD, 1000, 1001, PAD, PAD, PAD):
        clock.take(token, 0.0)
    assert clock.words == [Word("hello", 3200 + 2 * FRAME, 3200 + 5 * FRAME, 1.0)]
    assert clock.gap() == (3200 + 5 * FRAME, 3200 + 8 * FRAME)
    for token in (WORD, 1002):
        clock.take(token, 0.0)
    assert clock.gap() is None and len(clock.words) == 1, "an open word is not told yet"
    clock.take(1003, 0.0)
    clock.finish()
    assert [word.text for word in clock.words] == ["hello", "world"]
    assert clock.last_border() == 3200 + 11 * FRAME


def test_languages_are_told_apart_by_one_token() -> None:
    spelled = {"en": [7, 8, 20], "fr": [7, 8, 21], "es": [7, 8, 22, 5], "et": [7, 8, 22, 6]}
    assert choices(spelled) == ([7, 8], {20: "en", 21: "fr"})
