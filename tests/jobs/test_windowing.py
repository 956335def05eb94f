"""Windows hold all speech, and joining them loses and doubles no word."""

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.interfaces import RATE, Word
from deployments.transcriber.windows import LONGEST
from deployments.vad import FRAME_BYTES, FRAME_SAMPLES
from serve_app.jobs.joining import Transcribed, joined
from serve_app.jobs.windowing import MIN_SPEECH, PREFIX, Window, Windowing, longest_pause

WORD = 12
"""Frames of a word: 240 ms."""


def windows_of(flags: Sequence[bool], step: int = 50) -> list[Window]:
    windowing = Windowing(0)
    found = []
    for at in range(0, len(flags), step):
        part = flags[at : at + step]
        found += list(windowing.push(bytes(FRAME_BYTES * len(part)), part))
    return [*found, *windowing.finish()]


def runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Where voice begins and ends, in frames."""
    found, begin = [], None
    for at, voiced in enumerate([*flags, False]):
        if voiced and begin is None:
            begin = at
        if not voiced and begin is not None:
            found.append((begin, at))
            begin = None
    return found


patterns = st.lists(
    st.tuples(st.integers(0, 120), st.integers(1, 2200)), min_size=1, max_size=12
).map(
    lambda parts: [
        voiced for silence, speech in parts for voiced in [False] * silence + [True] * speech
    ]
)


@settings(max_examples=60, deadline=None)
@given(patterns, st.sampled_from([1, 7, 50]))
def test_all_speech_is_in_windows_that_are_short_and_in_order(flags: list[bool], step: int) -> None:
    windows = windows_of(flags, step)
    assert windows == windows_of(flags), "however it was cut into pieces"
    covered = set()
    for window in windows:
        assert 0 < window.end - window.start <= LONGEST
        covered |= set(range(window.start // FRAME_SAMPLES, window.end // FRAME_SAMPLES))
    for begin, end in runs(flags):
        assert end - begin < MIN_SPEECH or set(range(begin, end)) <= covered
    for before, after in itertools.pairwise(windows):
        assert (
            after.start == before.end - after.overlap
            or after.start >= before.end - PREFIX * FRAME_SAMPLES
        )


def spoken(flags: Sequence[bool]) -> list[Word]:
    """A word for every 240 ms of speech, no two alike."""
    return [
        Word(f"w{at}", at * FRAME_SAMPLES, (at + WORD) * FRAME_SAMPLES, 1.0)
        for begin, end in runs(flags)
        for at in range(begin, end - WORD + 1, WORD)
    ]


def heard(window: Window, words: Sequence[Word]) -> Transcribed:
    """What a recogniser hears of them: those that are whole in the window."""
    inside = tuple(word for word in words if window.start <= word.start and word.end <= window.end)
    where = (window.channel, window.start, window.end, window.overlap, window.goes_on)
    return Transcribed(*where, inside, None)


@settings(max_examples=60, deadline=None)
@given(patterns)
def test_no_word_is_lost_or_doubled(flags: list[bool]) -> None:
    long = [(begin, end) for begin, end in runs(flags) if end - begin >= MIN_SPEECH]
    words = [
        word
        for word in spoken(flags)
        if any(begin <= word.start // FRAME_SAMPLES < end for begin, end in long)
    ]
    found = joined([heard(window, words) for window in windows_of(flags)])
    assert [word.text for word in found] == [word.text for word in words]
    assert [word.start for word in found] == [word.start for word in words]


def test_silence_and_clicks_make_no_window() -> None:
    assert windows_of([False] * 5000) == []
    assert windows_of(([True] * 2 + [False] * 100) * 20) == []


def test_a_full_window_is_cut_in_its_longest_pause() -> None:
    flags = [True] * 600 + [False] * 12 + [True] * 300 + [False] * 40 + [True] * 600
    first, second = windows_of(flags)
    assert first.end == second.start == (600 + 12 + 300 + 20) * FRAME_SAMPLES and not second.overlap


def test_speech_without_a_pause_is_cut_with_an_overlap() -> None:
    first, second, *_ = windows_of([True] * 3000)
    assert first.end - first.start == LONGEST and second.overlap == 2 * RATE
    assert second.start == first.end - second.overlap


def test_the_longest_pause_is_looked_for_late_and_must_be_one() -> None:
    assert longest_pause([True] * 100, 10) is None
    assert longest_pause([True] * 20 + [False] * 9 + [True] * 20, 0) is None
    assert longest_pause([False] * 50 + [True] * 50 + [False] * 20 + [True], 60) == 110
