"""What a session leaves out at each quality level: partials and early finals, never finals."""

from typing import Any

import pytest

from deployments.interfaces import Edge, Hypothesis, Word
from serve_app.live.events import (
    AudioReceived,
    EagerFinal,
    QualityChanged,
    Recognize,
    TranscriptUpdate,
    UtteranceEnded,
)
from serve_app.live.session import Session
from tests.live.test_session import SECOND, eager, edges, final, judged, new, play

STEP_S = 0.125
"""Exact as a float."""


def partials(level: int, words: list[int], every_s: float = STEP_S) -> list[int]:
    """The numbers of the words in the partials sent, when each hypothesis has so many."""
    session = new()
    play(session, AudioReceived(SECOND), judged(1, (True, 0.1)))
    assert play(session, QualityChanged(level, "busy_ingress")) == [
        QualityChanged(level, "busy_ingress")
    ]
    sent = []
    known = 0
    for step, count in enumerate(words):
        new_words = tuple(Word("w", at, at + 1, 1.0) for at in range(known, count))
        hypothesis = Hypothesis(0, 0, step + 1, new_words, False, known)
        known = count
        sent += play(session, hypothesis, now=10 + step * every_s)
    assert all(isinstance(it, TranscriptUpdate) and not it.final for it in sent)
    assert session.metrics().partials_withheld == len(words) - len(sent)
    return [len(it.words) for it in sent]


def test_at_low_levels_every_partial_is_sent() -> None:
    for level in (0, 1, 2):
        assert partials(level, [1, 1, 2, 2]) == [1, 1, 2, 2]


def test_then_only_those_with_other_words() -> None:
    assert partials(3, [1, 1, 2, 2, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize(("level", "steps"), [(4, 3), (5, 8)])
def test_then_at_a_pace_and_the_newest_words(level: int, steps: int) -> None:
    assert partials(level, list(range(1, 41))) == list(range(1, 41, steps))


def test_a_changed_word_that_was_withheld_is_sent_with_the_next_partial() -> None:
    assert partials(4, [1, 2, 2, 2, 2]) == [1, 2]


@pytest.mark.parametrize("level", range(6))
def test_finals_always_come(level: int) -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(1, (True, 0.1)), QualityChanged(level, ""))
    play(session, judged(1, (False, 0.9)))
    (it,) = play(session, final(0))
    assert it.final and it.words


def facts_of_a_pause(session: Session) -> list[Any]:
    pausing = session.on(edges(0.6, (Edge.PAUSE, 0.6)), 1.0)
    return [*pausing, *session.on(edges(0.95, (Edge.END, 0.94)), 1.0)]


def test_at_the_top_no_reply_begins_early() -> None:
    session = eager()
    session.on(QualityChanged(5, ""), 1.0)
    orders = facts_of_a_pause(session)
    assert not [it for it in orders if isinstance(it, EagerFinal)]
    (ended,) = [it for it in orders if isinstance(it, UtteranceEnded)]
    assert ended.voice_until < ended.until, "the pause is still where it was"
    (last,) = session.on(final(0, 0.94), 1.0)[-1:]
    assert isinstance(last, TranscriptUpdate) and last.final


def test_who_goes_on_after_such_a_pause_has_missed_nothing() -> None:
    session = eager()
    session.on(QualityChanged(5, ""), 1.0)
    session.on(edges(0.6, (Edge.PAUSE, 0.6)), 1.0)
    (more,) = session.on(edges(0.8, (Edge.RESUME, 0.7)), 1.0)[-1:]
    assert isinstance(more, Recognize) and more.utterance == 0 and not more.ended
    orders = session.on(edges(0.95, (Edge.END, 0.94)), 1.0)
    (ended,) = [it for it in orders if isinstance(it, UtteranceEnded)]
    assert ended.voice_until == ended.until
