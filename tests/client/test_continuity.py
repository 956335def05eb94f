from typing import Any

import pytest

from serve_app.client.continuity import Continuity
from serve_app.client.errors import SessionFailed
from serve_app.client.events import Final, Partial, SessionClosed, SpeechEnded, SpeechStarted


def text(kind: str, utterance: int, until_ms: int, **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "text": "hello",
        "timestamp": 0.0,
        "audio_ms": until_ms,
        "start_ms": 0,
        "end_ms": until_ms,
        "utterance": utterance,
        "confidence": 1.0,
        "words": [],
        "engine": "sim",
        **more,
    }


def edge(kind: str, audio_ms: int) -> dict[str, Any]:
    return {"type": f"speech_{kind}", "audio_ms": audio_ms}


def error(code: str, fatal: bool = True) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": "it is so", "fatal": fatal}


CLOSED = {"type": "closed", "metrics": {}}


def shown(seen: Continuity, *frames: dict[str, Any]) -> list[Any]:
    return [type(event) for frame in frames if (event := seen.on(frame))]


def test_what_a_connection_says_again_is_not_shown_again() -> None:
    seen = Continuity()
    first = [edge("started", 100), text("partial", 0, 500), edge("ended", 900)]
    assert shown(seen, *first, text("final", 0, 900)) == [
        SpeechStarted,
        Partial,
        SpeechEnded,
        Final,
    ]
    assert shown(seen, edge("started", 1_100), text("partial", 1, 1_500)) == [
        SpeechStarted,
        Partial,
    ]
    seen.joined({"resume": "t"})
    again = [*first, text("final", 0, 900), edge("started", 1_120), text("partial", 1, 1_400)]
    assert shown(seen, *again) == []
    assert shown(seen, text("partial", 1, 1_500), edge("ended", 1_900)) == [Partial, SpeechEnded]
    assert shown(seen, text("final", 1, 1_900)) == [Final]


def test_the_same_number_or_the_same_audio_is_the_same_final() -> None:
    """A server that finds other borders gives what it hears other numbers."""
    seen = Continuity()
    shown(seen, text("final", 3, 900))
    assert shown(seen, text("final", 3, 950), text("final", 4, 900)) == []
    assert shown(seen, text("final", 4, 1_400)) == [Final]


def test_the_newest_token_is_kept_and_progress_only_grows() -> None:
    seen = Continuity()
    seen.joined({"resume": "a"})
    seen.on(text("final", 0, 900, resume="b"))
    seen.on({"type": "keepalive", "audio_ms": 700})
    assert (seen.token, seen.progress_ms) == ("b", 900)
    seen.on({"type": "resumable", "audio_ms": 5_000, "resume": "c"})
    assert (seen.token, seen.progress_ms) == ("c", 5_000)
    seen.joined({"resume": "d", "resumed_from_ms": 4_000})
    assert (seen.token, seen.progress_ms) == ("d", 4_000)


def test_it_is_quiet_between_utterances() -> None:
    seen = Continuity()
    course = [
        edge("started", 100),
        text("partial", 0, 500),
        edge("ended", 900),
        text("final", 0, 900),
    ]
    assert seen.quiet
    assert [bool(seen.on(frame)) and seen.quiet for frame in course] == [False, False, False, True]
    seen.on(edge("started", 1_000))
    seen.on(error("utterance_failed", fatal=False))
    assert not seen.quiet
    seen.on(edge("ended", 1_500))
    assert seen.quiet


def test_messages_of_a_newer_server_are_ignored() -> None:
    assert shown(Continuity(), {"type": "weather", "level": "fine"}) == []
    assert shown(Continuity(), edge("started", 5) | {"more": 1}) == [SpeechStarted]


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013])
def test_only_closed_and_a_normal_close_are_the_end(code: int) -> None:
    seen = Continuity()
    assert seen.ended(code) is None
    seen.on(CLOSED)
    assert (seen.ended(code) is not None) == (code == 1000)


@pytest.mark.parametrize("code", ["server_restarting", "too_many_sessions", "overloaded"])
def test_errors_of_one_server_do_not_end_the_session(code: str) -> None:
    seen = Continuity()
    assert shown(seen, error(code), CLOSED) == []
    assert seen.ended(1012) is None


def test_other_fatal_errors_end_it_after_its_last_event() -> None:
    seen = Continuity()
    assert shown(seen, error("silence_timeout"), CLOSED) == [SessionClosed]
    with pytest.raises(SessionFailed, match="it is so") as failed:
        seen.ended(1008)
    assert failed.value.code == "silence_timeout"


def test_a_connection_that_is_replaced_by_another_one_of_this_client_is_only_lost() -> None:
    seen = Continuity()
    seen.contested = True
    seen.on(error("session_resumed"))
    assert seen.ended(1008) is None
    seen.joined({})
    seen.on(error("session_resumed"))
    with pytest.raises(SessionFailed):
        seen.ended(1008)


def test_a_server_that_objects_to_this_client_is_not_asked_again() -> None:
    with pytest.raises(SessionFailed):
        Continuity().ended(1009)
