from typing import Any

import pytest

from deployments.interfaces import Option
from serve_app.dialects.realtime_session import RealtimeSession, ReplyShape
from serve_app.errors import ClientError
from serve_app.live.options import EngineInfo, Engines

ENGINES = Engines(
    EngineInfo("transcriber"),
    EngineInfo("chat", frozenset(Option)),
    EngineInfo("speaker", frozenset({Option.SPEED})),
    EngineInfo("diarizer"),
)
ONE_PACE = ENGINES._replace(speaker=EngineInfo("speaker"))


def reply_session(response: dict[str, Any], engines: Engines = ENGINES) -> RealtimeSession:
    """The session that a `response.create` with this response is done in."""
    return ReplyShape.of(response).over(RealtimeSession(), engines)


def test_a_response_has_its_own_voice_and_speed() -> None:
    session = reply_session({"audio": {"output": {"voice": "alloy", "speed": 1.5}}})
    assert (session.audio.output.voice_name, session.audio.output.speed) == ("alloy", 1.5)
    assert session.ignored == []


def test_a_response_at_a_speed_that_the_engine_lacks_is_refused() -> None:
    with pytest.raises(ClientError) as refused:
        reply_session({"audio": {"output": {"speed": 1.5}}}, ONE_PACE)
    assert refused.value.code == "unsupported_option"
    assert refused.value.param == "audio.output.speed"


@pytest.mark.parametrize(
    ("audio", "ignored"),
    [
        ({"output": {"format": {"type": "audio/pcmu"}}}, ["audio.output.format"]),
        ({"output": {"format": {"type": "audio/pcm", "rate": 24_000}}}, []),
        ({"output": {"pitch": 2}}, ["audio.output.pitch"]),
        ({"input": {"turn_detection": None, "transcription": {}}}, ["audio.input"]),
        (None, []),
    ],
)
def test_audio_settings_without_effect_on_a_response_are_listed(
    audio: Any, ignored: list[str]
) -> None:
    assert reply_session({"audio": audio}).ignored == ignored


def test_a_response_with_too_many_input_items_is_refused() -> None:
    with pytest.raises(ClientError) as refused:
        ReplyShape.of({"input": [{}] * 1001})
    assert refused.value.code == "invalid_value" and refused.value.param == "response.input"
