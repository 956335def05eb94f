import pytest

from serve_app.client.errors import (
    GaveUp,
    HandshakeRefused,
    ResumeRefused,
    SessionFailed,
    TranscriptionError,
    Unreachable,
)
from serve_app.client.outage import Outage

FULL = HandshakeRefused(503, b"", retry_after_s=7)


@pytest.mark.parametrize(
    ("error", "at_first", "later"),
    [
        (Unreachable("nobody"), False, True),
        (HandshakeRefused(503, b""), True, True),
        (HandshakeRefused(429, b""), True, True),
        (HandshakeRefused(500, b""), False, True),
        (HandshakeRefused(401, b""), False, False),
        (SessionFailed("overloaded", ""), True, True),
        (SessionFailed("unsupported_language", ""), False, False),
        (ResumeRefused("resume_refused", ""), False, False),
    ],
)
def test_what_is_worth_another_attempt(
    error: TranscriptionError, at_first: bool, later: bool
) -> None:
    """A server that was never there will hardly come; one that served this session will."""
    for known, passes in ((False, at_first), (True, later)):
        outage = Outage(0.0, 60.0)
        if passes:
            assert outage.wait_after_s(error, 1.0, known) < 1
        else:
            with pytest.raises(type(error)):
                outage.wait_after_s(error, 1.0, known)


def test_waits_grow_are_spread_and_honor_retry_after() -> None:
    waits = []
    for _ in range(300):
        outage = Outage(0.0, 60.0)
        waits.append([outage.wait_after_s(Unreachable("away"), 0.0, True) for _ in range(8)])
    for attempt, longest in enumerate([0.5, 1, 2, 4, 5, 5, 5, 5]):
        at = [wait[attempt] for wait in waits]
        assert max(at) <= longest and min(at) < longest / 10 and max(at) > longest * 0.9
    assert 7 <= Outage(0.0, 60.0).wait_after_s(FULL, 0.0, True) <= 7.5


def test_it_gives_up_when_another_attempt_would_be_too_late() -> None:
    outage = Outage(100.0, 60.0)
    outage.wait_after_s(FULL, 150.0, True)
    with pytest.raises(GaveUp, match="55 s"):
        outage.wait_after_s(FULL, 155.0, True)
