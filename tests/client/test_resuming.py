"""Both reference clients against a server that fails at chosen moments: what their user sees is
what an unbroken connection would have shown, and no audio is missing or sent twice."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.client.drivers import Driver, both, in_python
from tests.client.fake_server import FakeServer, Plan, finals, samples, scripted

UNTIL_MS, SPEED = 8_300, 10
LEISURELY = 2.2
"""At this speed a pause is longer than what a client waits in it before it moves."""
WHOLE = [f"word{n}.0 word{n}.1 word{n}.2" for n in range(4)]
Seen = tuple[list[dict[str, Any]], FakeServer]


def streamed(client: Driver, *script: Plan, until_ms: int = UNTIL_MS, **how: Any) -> Seen:
    async def run() -> Seen:
        async with scripted(*script) as fake:
            how.setdefault("speed", SPEED)
            events = await client(fake.url, audio, **how)
        return events, fake

    with tempfile.TemporaryDirectory() as folder:
        audio = Path(folder) / "counted.raw"
        audio.write_bytes(samples(0, until_ms))
        return asyncio.run(run())


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def check_unbroken(events: list[dict[str, Any]], fake: FakeServer) -> None:
    """One stream: it begins and ends once; speech, partials and finals come in order, each once."""
    assert fake.wrong == []
    assert [event["text"] for event in finals(events)] == WHOLE
    assert [event["utterance"] for event in finals(events)] == [0, 1, 2, 3]
    assert kinds(events).count("session") == kinds(events).count("closed") == 1
    assert kinds(events)[-2:] == ["closed", "done"]
    edges = [it for it in events if it["type"] in ("speech_started", "speech_ended")]
    assert kinds(edges) == ["speech_started", "speech_ended"] * 4
    said = [
        (it["utterance"], it["audio_ms"]) for it in events if it["type"] in ("partial", "final")
    ]
    assert said == sorted(said)


@both
def test_a_connection_that_holds(client: Driver) -> None:
    events, fake = streamed(client)
    check_unbroken(events, fake)
    assert kinds(events)[0] == "session" and "reconnecting" not in kinds(events)
    assert fake.starts == [{"type": "start", "language": "en"}]


@both
@pytest.mark.parametrize(
    "at_ms",
    [
        pytest.param(300, id="before speech"),
        pytest.param(1_000, id="before the first final"),
        pytest.param(1_600, id="at a final"),
        pytest.param(2_200, id="between finals"),
        pytest.param(5_200, id="within an utterance"),
    ],
)
def test_a_connection_that_breaks(client: Driver, at_ms: int) -> None:
    check_resumed(*streamed(client, Plan(cut_at_ms=at_ms)))


@both
@pytest.mark.parametrize("close", [1001, 1011, 1012, 1013])
def test_a_connection_that_is_closed_by_a_server_that_stops(client: Driver, close: int) -> None:
    check_resumed(*streamed(client, Plan(cut_at_ms=1_600, close=close)))


def check_resumed(events: list[dict[str, Any]], fake: FakeServer) -> None:
    check_unbroken(events, fake)
    assert kinds(events).count("reconnecting") == kinds(events).count("resumed") == 1
    assert "resume" in fake.starts[1] and len(fake.starts[1]) == 2


@both
def test_connections_that_break_again_and_again(client: Driver) -> None:
    cuts = [Plan(cut_at_ms=ms) for ms in (500, 900, 1_500, 2_500, 2_700, 5_100, 7_500)]
    events, fake = streamed(client, *cuts, speed=20)
    check_unbroken(events, fake)
    assert kinds(events).count("resumed") == 7


@both
def test_a_handshake_that_is_refused_during_an_outage(client: Driver) -> None:
    events, fake = streamed(
        client, Plan(cut_at_ms=3_000), Plan(refuse=503, retry_after_s=1), Plan(refuse=502)
    )
    check_unbroken(events, fake)
    assert len(fake.handshakes) == 4 and len(fake.starts) == 2
    if client is in_python:  # a browser's WebSocket does not show the status and its headers
        assert fake.handshakes[2] - fake.handshakes[1] >= 1


@both
@pytest.mark.parametrize("full", [Plan(refuse=503, retry_after_s=0), Plan(error="overloaded")])
def test_a_server_that_is_full_at_first(client: Driver, full: Plan) -> None:
    events, fake = streamed(client, full)
    check_unbroken(events, fake)
    assert kinds(events)[:2] == ["reconnecting", "session"] and "resumed" not in kinds(events)


@both
def test_a_server_that_drains_is_left_at_a_pause(client: Driver) -> None:
    """The next one takes the session before this one is left: there is no outage."""
    events, fake = streamed(client, Plan(drain_at_ms=800), speed=LEISURELY)
    check_unbroken(events, fake)
    assert len(fake.starts) == 2 and "reconnecting" not in kinds(events)
    token = fake.starts[1]["resume"]
    assert int(token.split("/")[1]) >= 1, "it moved before the utterance was final"


@both
def test_a_server_that_drains_is_kept_while_no_other_takes_the_session(client: Driver) -> None:
    draining = Plan(drain_at_ms=800, cut_at_ms=7_700, close=1012)
    full = Plan(refuse=503, retry_after_s=60)
    events, fake = streamed(client, draining, full, speed=LEISURELY)
    check_unbroken(events, fake)
    assert kinds(events).count("resumed") == 1 and len(fake.starts) == 2
    assert len(fake.handshakes) == 3


@both
def test_a_move_that_fails_halfway(client: Driver) -> None:
    """The new server took the session from the old one, and was lost before it said so."""
    events, fake = streamed(client, Plan(drain_at_ms=800), Plan(vanish=True), speed=LEISURELY)
    check_unbroken(events, fake)
    assert len(fake.starts) == 3 and kinds(events).count("resumed") == 1


@both
def test_a_session_that_cannot_be_resumed(client: Driver) -> None:
    events, fake = streamed(client, Plan(tokens=False))
    check_unbroken(events, fake)
    events, fake = streamed(client, Plan(tokens=False, cut_at_ms=3_000))
    assert events[-1]["code"] == "resume_refused" and len(fake.starts) == 1


@both
def test_a_session_that_another_client_continues(client: Driver) -> None:
    events, fake = streamed(client, Plan(cut_at_ms=3_000, error_at_cut="session_resumed"))
    assert kinds(events)[-1] == "failed" and events[-1]["code"] == "session_resumed"
    assert kinds(events)[-2] == "closed" and len(fake.starts) == 1


@both
def test_a_token_that_is_refused_before_any_final_begins_anew(client: Driver) -> None:
    events, fake = streamed(client, Plan(cut_at_ms=1_000), Plan(error="resume_refused"))
    check_unbroken(events, fake)
    assert fake.starts[2] == fake.starts[0]


@both
def test_a_token_that_is_refused_after_a_final_is_an_error(client: Driver) -> None:
    """A new session might lose words, and would number its utterances from 0."""
    events, fake = streamed(client, Plan(cut_at_ms=3_000), Plan(error="resume_refused"))
    assert events[-1]["code"] == "resume_refused" and len(fake.starts) == 2
    assert [event["text"] for event in finals(events)] == WHOLE[:1]


@both
def test_options_that_are_refused_are_an_error_at_once(client: Driver) -> None:
    events, fake = streamed(client, Plan(error="unsupported_language"))
    assert kinds(events) == ["failed"] and events[0]["code"] == "unsupported_language"
    assert len(fake.handshakes) == 1


@both
def test_what_the_client_asked_to_finalize_is_asked_again(client: Driver) -> None:
    """The break is between the request and its final."""
    events, fake = streamed(
        client, Plan(cut_at_ms=3_000), until_ms=4_000, finalize_at_ms=3_000, speed=0
    )
    assert fake.wrong == [] and set(fake.finalized) == {3_000}
    assert [(it["utterance"], it["end_ms"]) for it in finals(events)] == [(0, 1_600), (1, 3_000)]


@both
def test_a_change_of_quality_is_told_and_ends_with_the_connection(client: Driver) -> None:
    events, fake = streamed(client, Plan(quality_at_ms=2_000, cut_at_ms=5_200))
    check_unbroken(events, fake)
    assert [it["level"] for it in events if it["type"] == "quality"] == [2, 0]


@both
def test_audio_is_sent_no_faster_than_the_server_permits(client: Driver) -> None:
    """As from a file; the fake server notes when too much is ahead of what it has dealt with."""
    events, fake = streamed(client, Plan(cut_at_ms=7_000), speed=0)
    check_unbroken(events, fake)
