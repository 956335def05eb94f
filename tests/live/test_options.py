"""An option is used, refused, or named in `ignored`: over every dialect, with engines of few gifts."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect

from deployments.chat.eliza import Eliza
from deployments.interfaces import NO_OPTIONS, Option, SpeechOptions
from loadtest.speech import wav
from serve_app.config import Limits
from serve_app.errors import ClientError
from serve_app.live.options import EngineInfo, check_options, listed, not_in_force
from tests.fakes import models, served

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """ELIZA, a recogniser that takes no options, and a voice that takes none."""
    few = {"transcriber": NO_OPTIONS, "chat": Eliza.options, "speaker": NO_OPTIONS}
    with served(given=models(chat_engine=Eliza(), options=few)) as address:
        yield address


def chat(address: str, **asked: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hello."}], **asked}
    return httpx.post(f"http://{address}/v1/chat/completions", json=body)


@pytest.mark.parametrize(
    ("asked", "code", "param"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "unsupported_option", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": TOOL}, "unsupported_option", "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "unsupported_option", "response_format"),
        ({"response_format": {"type": "json_schema"}}, "unsupported_option", "response_format"),
        ({"n": 2}, "invalid_request", "n"),
        ({"tool_choice": "perhaps"}, "invalid_request", "tool_choice"),
        ({"messages": [{"role": "nobody"}]}, "invalid_request", "messages.0.role"),
    ],
)
def test_a_reply_that_the_engine_cannot_give_is_the_clients_mistake(
    address: str, asked: dict[str, Any], code: str, param: str
) -> None:
    answer = chat(address, **asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


def test_a_tool_that_is_not_there_cannot_be_required() -> None:
    with served() as address:
        for choice in ("required", {"type": "function", "function": {"name": "other"}}):
            answer = chat(address, tools=[], tool_choice=choice)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "tool_choice"
        answer = chat(address, tools=[TOOL], tool_choice="required", temperature=0.5)
        assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
        assert answer.json()["ignored"] == ["temperature"]


def test_what_clients_send_unasked_is_named_in_the_answer(address: str) -> None:
    said = [{"role": "system", "content": "Sing."}, {"role": "user", "content": "Hello."}]
    unused = {"temperature": 0.1, "top_p": 0.9, "tools": [TOOL], "seed": 7, "stop": "x"}
    asked = {"messages": said, "max_tokens": 3, "parallel_tool_calls": True, "user": None, **unused}
    whole = chat(address, **asked).json()
    assert set(whole["ignored"]) == {*unused, "messages.system", "parallel_tool_calls"}
    assert whole["usage"]["completion_tokens"] == 3
    events = chat(address, stream=True, **asked).text.split("\n\n")
    assert set(json.loads(events[0][6:])["ignored"]) == set(whole["ignored"])
    assert "ignored" not in events[1] and "ignored" not in chat(address).json()


def transcribed(address: str, path: str, pcm: bytes, **fields: Any) -> httpx.Response:
    files = {"file": ("a.wav", wav(pcm), "audio/wav")}
    return httpx.post(f"http://{address}{path}", files=files, data=fields, timeout=30)


@pytest.mark.parametrize("form", ["json", "verbose_json", "diarized_json", "text", "srt", "vtt"])
def test_a_transcription_says_what_it_ignored(address: str, speech: bytes, form: str) -> None:
    asked = {
        "language": "en",
        "prompt": "Paris",
        "temperature": "0.4",
        "keywords[]": "Paris",
        "known_speaker_names[]": "Ann",
        "chunking_strategy[type]": "server_vad",
    }
    path = "/v1/audio/transcriptions"
    answer = transcribed(address, path, speech, response_format=form, **asked)
    assert answer.status_code == 200, answer.text
    assert set(answer.headers["x-voxray-ignored"].split(", ")) == set(asked)
    if "json" in form:
        assert set(answer.json()["ignored"]) == set(asked)
    plain = transcribed(address, path, speech, response_format=form, temperature="0")
    assert "x-voxray-ignored" not in plain.headers and "ignored" not in plain.text


def test_our_own_routes_refuse_what_the_engine_would_ignore(address: str, speech: bytes) -> None:
    for field in ("language", "hotwords", "grammar"):
        for path in ("/v1/transcribe", "/v1/jobs", "/api/upload"):
            answer = transcribed(address, path, speech, **{field: "en"})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "unsupported_option")
            assert error["param"] == field
    answer = transcribed(address, "/v1/jobs", speech, prompt="What is said?")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_speech_says_what_it_ignored(address: str) -> None:
    url = f"http://{address}/v1/audio/speech"
    asked = {"input": "One.", "response_format": "pcm", "instructions": "Whisper.", "mood": "gay"}
    said = httpx.post(url, json=asked)
    assert said.headers["x-voxray-ignored"] == "instructions, mood" and said.content
    events = httpx.post(url, json=asked | {"stream_format": "sse"}).text
    assert '"ignored": ["instructions", "mood"]' in events.split("\n\n")[-2]
    fast = httpx.post(url, json={"input": "One.", "speed": 2})
    assert (fast.status_code, fast.json()["error"]["param"]) == (400, "speed")


def exchanged(address: str, path: str, *frames: dict[str, Any], until: str) -> dict[str, Any]:
    async def story() -> dict[str, Any]:
        async with connect(f"ws://{address}{path}") as socket, asyncio.timeout(10):
            for frame in frames:
                await socket.send(json.dumps(frame))
            while True:
                event: dict[str, Any] = json.loads(await socket.recv())
                if event["type"] in (until, "error"):
                    return event

    return asyncio.run(story())


def updated(address: str, **session: Any) -> dict[str, Any]:
    frame = {"type": "session.update", "session": {"type": "realtime", **session}}
    return exchanged(address, "/v1/realtime", frame, until="session.updated")


def test_a_realtime_session_shows_what_is_in_force(address: str) -> None:
    transcription = {"model": "m", "language": "en", "prompt": "Paris", "keywords": ["Paris"]}
    session = updated(
        address,
        instructions="Sing.",
        tracing="auto",
        truncation="auto",
        reasoning={"effort": "low"},
        tools=[{"type": "function", "name": "f"}],
        audio={
            "input": {
                "noise_reduction": {"type": "near_field"},
                "transcription": transcription,
                "turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000},
            },
            "output": {"voice": "marin"},
        },
    )["session"]
    heard = session["audio"]["input"]
    assert set(session["ignored"]) == {
        "instructions",
        "tracing",
        "reasoning",
        "tools",
        "audio.input.noise_reduction",
        "audio.input.transcription.language",
        "audio.input.transcription.prompt",
        "audio.input.transcription.keywords",
        "audio.input.turn_detection.idle_timeout_ms",
    }
    assert heard["noise_reduction"] is None and session["tools"] == []
    assert heard["transcription"] == {"model": "m", "language": None, "prompt": None}
    assert heard["turn_detection"]["idle_timeout_ms"] is None
    assert session["audio"]["output"]["voice"] == "marin"


def test_a_timer_is_not_announced_as_semantic_vad(address: str) -> None:
    asked = {"type": "semantic_vad", "eagerness": "low", "interrupt_response": False}
    session = updated(address, audio={"input": {"turn_detection": asked}})["session"]
    detection = session["audio"]["input"]["turn_detection"]
    assert detection["type"] == "server_vad" and detection["silence_duration_ms"] == 1000
    assert detection["interrupt_response"] is False
    assert session["ignored"] == ["audio.input.turn_detection.type"]
    assert "ignored" not in updated(address, audio={"output": {"voice": "marin"}})["session"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tool_choice": "required", "tools": [{"type": "function", "name": "f"}]}, "tool_choice"),
        ({"audio": {"output": {"speed": 1.5}}}, "audio.output.speed"),
        ({"audio": {"output": {"speed": "fast"}}}, "session.audio.output.speed"),
        (
            {"audio": {"input": {"turn_detection": {"type": "x"}}}},
            "session.audio.input.turn_detection",
        ),
        ({"tools": [{"type": "function"}]}, "session.tools.0.name"),
    ],
)
def test_a_session_that_cannot_be_is_refused(
    address: str, asked: dict[str, Any], param: str
) -> None:
    error = updated(address, **asked)["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error"


def test_a_reply_names_what_it_ignored(address: str) -> None:
    asked = {"tools": [{"type": "function", "name": "f"}], "prompt": {"id": "p"}}
    frame = {"type": "response.create", "response": {**asked, "instructions": "Greet."}}
    told = exchanged(address, "/v1/realtime", frame, until="response.created")
    assert set(told["response"]["ignored"]) == {"tools", "prompt", "instructions"}


def test_an_utterance_over_ws_names_what_it_ignored(address: str, speech: bytes) -> None:
    audio = {"type": "audio", "audio_data": base64.b64encode(wav(speech)).decode()}
    unused = {"mode": "transcribe", "prompt": "Sing.", "voice": "alloy", "mood": "gay"}
    told = exchanged(address, "/ws", audio | unused, until="conversation_complete")
    assert told["ignored"] == ["prompt", "voice", "mood"]
    told = exchanged(address, "/ws", audio | {"prompt": "Sing."}, until="conversation_complete")
    assert told["ignored"] == ["prompt"]
    refused = exchanged(address, "/ws", audio | {"language": "en"}, until="conversation_complete")
    assert refused["code"] == "unsupported_option"


def test_one_language_may_be_named_to_an_engine_that_knows_no_other() -> None:
    check_options(SpeechOptions("en-GB"), EngineInfo("own", NO_OPTIONS, ("en",)), Limits())
    with pytest.raises(ClientError, match="does not know language 'fr'"):
        check_options(SpeechOptions("fr"), EngineInfo("own", NO_OPTIONS, ("en",)), Limits())
    with pytest.raises(ClientError, match="does not support hotwords; it supports grammar"):
        grammars = EngineInfo("own", frozenset({Option.GRAMMAR}))
        check_options(SpeechOptions(hotwords=("go",)), grammars, Limits())


def test_names_of_ignored_options_are_bounded_and_plain() -> None:
    assert listed(["a", "a", "b[]", "x\r\ny", "é" * 3]) == ["a", "b[]", "?"]
    assert len(listed(f"n{number}" for number in range(1000))) == 32
    asked = {"a": {"b": 1, "c": None, "d": [1]}, "e": "x", "f": 1}
    assert not_in_force(asked, {"a": {"b": 1.0, "d": []}, "e": "y"}) == ["a.d", "e", "f"]
