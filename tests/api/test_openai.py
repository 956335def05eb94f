"""The OpenAI surface, spoken to by the stock `openai` client over a real socket."""

import asyncio
import base64
import io
import json
import wave
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest
import soxr

from loadtest.speech import wav
from tests.fakes import served

FORMATS = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_health_is_also_where_vllms_clients_look(address: str) -> None:
    assert httpx.get(f"http://{address}/health").json()["status"] == "healthy"


def test_a_streamed_transcription_for_vllms_clients(address: str, speech: bytes) -> None:
    """One chunk serves both: `choices` for vLLM's bench and GuideLLM, `delta` for OpenAI's."""
    form = {"model": "m", "stream": "true", "stream_include_usage": "true"}
    answer = httpx.post(
        f"http://{address}/v1/audio/transcriptions",
        data=form,
        files={"file": ("a.wav", wav(speech), "audio/wav")},
    )
    *chunks, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    first, last = json.loads(chunks[0]), json.loads(chunks[-1])
    assert done == "[DONE]" and first["choices"][0]["delta"]["content"] == first["delta"]
    assert last["usage"]["completion_tokens"] == len(last["text"].split()) and not last["choices"]


def file(speech: bytes) -> tuple[str, bytes, str]:
    return ("upload", wav(speech), "application/octet-stream")


def test_the_stock_client_lists_every_engine(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    kinds = ["transcriber", "chat", "speaker", "diarizer"]
    assert [model.id for model in listed] == [f"{kind}/sim" for kind in kinds]
    assert all(client.models.retrieve(model.id) == model for model in listed)
    assert client.models.retrieve("sim") == listed[0], "an engine's name is found, too"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-9")
    assert error.value.code == "model_not_found" and error.value.request_id


def test_transcriptions_in_every_form(client: openai.OpenAI, speech: bytes) -> None:
    create: Any = client.audio.transcriptions.create
    plain = create(file=file(speech), model="whisper-1")
    assert len(plain.text.split()) > 3 and plain.usage.type == "duration"
    assert create(file=file(speech), model="m", response_format="text") == plain.text + "\n"
    assert create(file=file(speech), model="m", response_format="srt").startswith("1\n00:00:00,")
    assert create(file=file(speech), model="m", response_format="vtt").startswith("WEBVTT\n")
    verbose = create(file=file(speech), model="m", response_format="verbose_json")
    assert verbose.text == plain.text and verbose.segments[0].end > 1 and verbose.words is None
    words = create(
        file=file(speech),
        model="m",
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    assert [word.word for word in words.words] == plain.text.split() and words.segments is None
    logs = create(file=file(speech), model="m", include=["logprobs"]).logprobs
    assert [log.token for log in logs] == plain.text.split()


def test_a_streamed_transcription_adds_up(client: openai.OpenAI, talk: bytes) -> None:
    three = (talk + bytes(2 * 32_000)) * 3
    events = list(client.audio.transcriptions.create(file=file(three), model="m", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == 3 and events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text


def test_speakers_are_distinguished(client: openai.OpenAI, talk: bytes) -> None:
    create: Any = client.audio.transcriptions.create
    diarized = create(file=file(talk), model="m", response_format="diarized_json")
    assert {segment.speaker for segment in diarized.segments} == {"A", "B"}
    assert " ".join(segment.text for segment in diarized.segments) == diarized.text
    assert diarized.duration == pytest.approx(len(talk) / 32_000, abs=0.01)
    starts = [segment.start for segment in diarized.segments]
    assert starts == sorted(starts) and len({segment.id for segment in diarized.segments}) > 1
    events = list(create(file=file(talk), model="m", response_format="diarized_json", stream=True))
    spoken = [event for event in events if event.type == "transcript.text.segment"]
    assert [event.speaker for event in spoken] == [it.speaker for it in diarized.segments]
    assert events[-1].type == "transcript.text.done" and events[-1].text == diarized.text


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_what_is_not_supported_is_refused(client: openai.OpenAI, speech: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.audio.translations.create(file=file(speech), model="m")
    assert error.value.code == "translation_unavailable"
    with pytest.raises(openai.BadRequestError) as error:
        client.audio.transcriptions.create(file=("upload", b"no audio"), model="m")
    assert error.value.code == "unreadable_audio"


@pytest.mark.parametrize("format_", [*FORMATS, "wav", "pcm"])
def test_speech_in_every_format(client: openai.OpenAI, format_: Any) -> None:
    import av

    speech_ = client.audio.speech.create(
        input="One two three four five. Six seven.",
        model="tts-1",
        voice="alloy",
        response_format=format_,
    )
    expected = 7 / 10
    if format_ == "pcm":
        assert len(speech_.content) / 48_000 == pytest.approx(expected, abs=0.01)
        return
    assert speech_.response.headers["content-type"] == FORMATS.get(format_, "audio/wav")
    with av.open(io.BytesIO(speech_.content), "r") as container:
        stream = container.streams.audio[0]
        frames: list[Any] = list(container.decode(stream))
        seconds = sum(frame.samples for frame in frames) / stream.rate
    assert seconds == pytest.approx(expected, abs=0.08)


def test_speech_comes_while_it_is_made(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        input="One. " * 50, model="m", voice="sim-low", response_format="wav", speed=0.5
    ) as response:
        chunks = list(response.iter_bytes())
    assert len(chunks) > 10
    assert wave.open(io.BytesIO(b"".join(chunks))).getframerate() == 24_000


def test_speech_as_events(address: str) -> None:
    body = {"input": "One two.", "voice": {"id": "sim-low"}, "response_format": "pcm"}
    answer = httpx.post(f"http://{address}/v1/audio/speech", json=body | {"stream_format": "sse"})
    events = [line for line in answer.text.split("\n\n") if line]
    assert '"speech.audio.delta"' in events[0] and '"speech.audio.done"' in events[-1]
    assert '"total_tokens": 2' in events[-1]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": "hi", "voice": "nobody"}, "unknown_voice"),
        ({"input": "x" * 4097}, "text_too_long"),
        ({"input": "..."}, "invalid_value"),
        ({"input": "hi", "speed": 9}, "invalid_request"),
        ({"input": "hi", "voice": {"id": {}}}, "invalid_request"),
        ({"input": "hi", "response_format": "midi"}, "invalid_request"),
        ({}, "invalid_request"),
    ],
)
def test_speech_that_cannot_be(address: str, body: dict[str, Any], code: str) -> None:
    answer = httpx.post(f"http://{address}/v1/audio/speech", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == code
    assert answer.json()["error"]["param"] == next(reversed(body), "input")


def test_voices_are_listed_with_language_and_gender(address: str) -> None:
    listed = httpx.get(f"http://{address}/v1/audio/voices?language=en").json()
    assert listed["voices"][0] == {
        "id": "sim-low",
        "language": "en-us",
        "gender": "unknown",
        "name": "A hum at 220 Hz",
    }
    assert listed["aliases"]["alloy"] == "sim-low"
    assert httpx.get(f"http://{address}/v1/audio/voices?language=fr").json()["voices"] == []


HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {}}}


def test_the_stock_client_chats_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=HELLO)
    assert whole.choices[0].message.content == "The sim answers, and this is all it "
    assert whole.usage and whole.usage.completion_tokens == 8
    cut = client.chat.completions.create(model="m", messages=HELLO, max_tokens=2)
    assert cut.choices[0].finish_reason == "length" and cut.choices[0].message.content == "The sim "


def test_chat_streamed_in_openais_order(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices].count("stop") == 1
    assert not chunks[-1].choices and chunks[-1].usage and chunks[-1].usage.total_tokens == 9
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "The sim answers, and this is all it "


def test_chat_calls_tools(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="m", messages=HELLO, tools=[TOOL], tool_choice="required"
    )
    (call,) = reply.choices[0].message.tool_calls or []
    assert reply.choices[0].finish_reason == "tool_calls"
    assert call.type == "function" and call.function.name == "look_up"
    answered: Any = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "42"},
    ]
    again = client.chat.completions.create(model="m", messages=answered, tools=[TOOL])
    assert again.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/no/such", 404),
        ("GET", "/v1/live/sessions", 404),
        ("GET", "/v1/audio/speech", 405),
        ("POST", "/v1/chat/completions", 400),
    ],
)
def test_every_error_has_openais_shape(address: str, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"http://{address}{path}", content=b"{}")
    assert answer.status_code == status and set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


def test_a_body_that_is_too_large_is_refused(address: str) -> None:
    answer = httpx.post(f"http://{address}/v1/chat/completions", content=b" " * 5_000_000)
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "message_too_large"


def test_a_client_secret_opens_realtime_only(client: openai.OpenAI, address: str) -> None:
    secret = client.realtime.client_secrets.create(
        session={
            "type": "realtime",
            "instructions": "Be brief.",
            "audio": {"output": {"voice": "marin"}},
        }
    )
    assert secret.value.startswith("ek_")
    assert secret.session.instructions == "Be brief."  # type: ignore[union-attr]
    headers = {"Authorization": f"Bearer {secret.value}"}
    refused = httpx.get(f"http://{address}/v1/models", headers=headers)
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
    asyncio.run(_opens(address, secret.value))


async def _opens(address: str, secret: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key=secret) as client:
        async with client.realtime.connect(model="m") as connection:
            created: Any = await connection.recv()
            assert created.session.instructions == "Be brief."


def speech_24k(speech: bytes) -> bytes:
    samples = np.frombuffer(speech, "<i2")
    return bytes(soxr.resample(samples, 16_000, 24_000).astype("<i2").tobytes())


def test_a_conversation_with_the_stock_realtime_client(address: str, speech: bytes) -> None:
    async def go() -> dict[str, Any]:
        seen: dict[str, Any] = {"types": [], "audio": b"", "said": ""}
        async with (
            openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="any") as client,
            client.realtime.connect(model="gpt-realtime") as connection,
        ):
            await connection.session.update(
                session={"type": "realtime", "audio": {"input": {"transcription": {"model": "m"}}}}
            )
            pcm = speech_24k(speech)
            for at in range(0, len(pcm), 4800):
                audio = base64.b64encode(pcm[at : at + 4800]).decode()
                await connection.input_audio_buffer.append(audio=audio)
            async for event in connection:
                seen["types"].append(event.type)
                if event.type == "response.output_audio.delta":
                    seen["audio"] += base64.b64decode(event.delta)
                if event.type == "conversation.item.input_audio_transcription.completed":
                    seen["heard"] = event.transcript
                if event.type == "response.output_audio_transcript.done":
                    seen["said"] = event.transcript
                if event.type == "response.done":
                    seen["usage"] = event.response.usage
                    return seen
        raise AssertionError("the conversation ended early")

    seen = asyncio.run(asyncio.wait_for(go(), 30))
    assert seen["types"][:3] == [
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
    ]
    assert len(seen["heard"].split()) > 3
    assert seen["said"].startswith("The sim answers,")
    assert len(seen["audio"]) == pytest.approx(2 * 24_000 * 8 / 10, rel=0.01)
    assert seen["usage"].output_tokens > 0
