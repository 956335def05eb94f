import pytest

from serve_app.live.backlog import Backlog, ReaderTooSlow
from serve_app.live.events import Close, Event, SessionMetrics, SpeechBoundary, TranscriptUpdate


def partial(number: int) -> TranscriptUpdate:
    return TranscriptUpdate(0, False, 0, number, ())


FINAL = TranscriptUpdate(0, True, 0, 9, ())


def test_of_partials_in_a_row_the_newest_is_kept_and_finals_all() -> None:
    backlog = Backlog(10)
    sent: list[Event] = [partial(1), partial(2), FINAL, partial(3), FINAL, partial(4), partial(5)]
    for event in sent:
        backlog.put(event)
    kept = []
    while backlog:
        kept.append(backlog.take())
    assert kept == [partial(2), FINAL, partial(3), FINAL, partial(5)]
    assert backlog.dropped == 2


def test_what_must_not_be_dropped_has_a_bound_and_the_goodbye_a_place() -> None:
    backlog = Backlog(2)
    backlog.put(SpeechBoundary(True, 0))
    backlog.put(FINAL)
    with pytest.raises(ReaderTooSlow):
        backlog.put(FINAL)
    backlog.put(Close(1000, SessionMetrics()))
