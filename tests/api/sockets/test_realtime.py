"""`WS /v1/realtime` over a real socket: OpenAI's events, their invariants, and vLLM's dialect."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import soxr
import websockets
from websockets.asyncio.client import connect

from deployments.audio import from_int16
from deployments.chat.sim import SimChat
from deployments.speaker.sim import SimSpeaker
from serve_app.config import Config
from tests.fakes import LocalReplicaSet, models, served, sim_transcriber
from tests.waiting import settled, wait_for

Frame = dict[str, Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


def at_24k(speech: bytes) -> bytes:
    samples = np.frombuffer(speech, "<i2")
    return bytes(soxr.resample(samples, 16_000, 24_000).astype("<i2").tobytes())


class Client:
    """Sends events, keeps all that come, and checks what must always hold (PROTOCOL: I1 to I10)."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.events: list[Frame] = []

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def update(self, **session: Any) -> Frame:
        await self.send("session.update", session={"type": "realtime", **session})
        return await self.until("session.updated")

    async def speak(self, pcm: bytes, size: int = 4800) -> None:
        for at in range(0, len(pcm), size):
            audio = base64.b64encode(pcm[at : at + size]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    async def until(self, type_: str, patience_s: float = 10) -> Frame:
        """The next event of the type."""
        async with asyncio.timeout(patience_s):
            while True:
                event: Frame = json.loads(await self.socket.recv())
                self.events.append(event)
                if event["type"] == type_:
                    return event

    async def error(self) -> str:
        return str((await self.until("error"))["error"]["code"])

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, type_: str) -> list[Frame]:
        return [event for event in self.events if event["type"] == type_]


def check_invariants(events: list[Frame]) -> None:
    assert events[0]["type"] == "session.created"
    ids = [event["event_id"] for event in events]
    assert len(ids) == len(set(ids))
    known, done, deltas, active = set[str](), set[str](), dict[str, str](), None
    for event in events:
        kind = event["type"]
        if kind == "conversation.item.added":
            assert event["item"]["id"] not in known
            assert event["previous_item_id"] in (None, *known)
            known.add(event["item"]["id"])
        elif kind == "conversation.item.done":
            assert event["item"]["id"] in known
        elif "input_audio_transcription" in kind:
            assert event["item_id"] not in done
            if kind.endswith("delta"):
                deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
            else:
                assert event["item_id"] in known
                done.add(event["item_id"])
            if kind.endswith("completed"):
                assert deltas.get(event["item_id"], "") == event["transcript"]
        elif kind == "response.created":
            assert active is None
            active = event["response"]["id"]
        elif kind == "response.done":
            assert active == event["response"]["id"]
            assert event["response"]["status"] in ("completed", "cancelled", "failed", "incomplete")
            active = None
        elif kind.startswith("response."):
            assert event["response_id"] == active
        if kind == "response.output_audio_transcript.delta":
            deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
        if kind == "response.output_audio_transcript.done":
            assert deltas[event["item_id"]] == event["transcript"]


def play(
    address: str, story: Callable[[Client], Coroutine[Any, Any, None]], query: str = "?model=m"
) -> Client:
    async def go() -> Client:
        async with connect(f"ws://{address}/v1/realtime{query}", max_size=None) as socket:
            client = Client(socket)
            await client.until("session.created")
            await story(client)
        return client

    client = asyncio.run(go())
    if "conversation.item.added" in client.types():
        check_invariants(client.events)
    return client


TRANSCRIBED = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}


def test_a_spoken_turn_in_openais_order(address: str, speech: bytes) -> None:
    async def story(client: Client) -> None:
        await client.update(**TRANSCRIBED)
        await client.speak(at_24k(speech))
        await client.until("rate_limits.updated")

    client = play(address, story)
    order = [t for n, t in enumerate(client.types()) if t not in client.types()[:n]]
    assert order == [
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    started, stopped = (
        client.of(f"input_audio_buffer.speech_{w}")[0] for w in ("started", "stopped")
    )
    assert started["item_id"] == stopped["item_id"]
    assert 300 < started["audio_start_ms"] < 900 < stopped["audio_end_ms"]


def test_a_session_is_merged_and_shown(address: str) -> None:
    async def story(client: Client) -> None:
        first = await client.update(
            instructions="Sing.",
            tracing="auto",
            reasoning={"effort": "low"},
            audio={"output": {"voice": "marin", "speed": 1.5}, "input": {"noise_reduction": None}},
            tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        )
        assert first["session"]["audio"]["output"]["voice"] == "marin"
        second = await client.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
        session = second["session"]
        assert session["instructions"] == "Sing." and session["tools"][0]["name"] == "f"
        assert session["audio"]["output"]["speed"] == 1.5
        assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        third = await client.update(audio={"input": {"turn_detection": None}})
        assert third["session"]["audio"]["input"]["turn_detection"] is None

    play(address, story)


def test_without_turn_detection_a_commit_ends_the_turn(address: str, speech: bytes) -> None:
    async def story(client: Client) -> None:
        await client.update(
            audio={"input": {"turn_detection": None, "transcription": {"model": "m"}}}
        )
        await client.speak(at_24k(speech))
        await client.send("input_audio_buffer.commit")
        heard = await client.until("conversation.item.input_audio_transcription.completed")
        assert len(heard["transcript"].split()) > 3
        await client.send("response.create", response={"metadata": {"client_event_id": "e1"}})
        created = await client.until("response.created")
        assert created["response"]["metadata"] == {"client_event_id": "e1"}
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed" and done["metadata"] == {"client_event_id": "e1"}
        assert done["usage"]["total_tokens"] > 0
        await client.speak(at_24k(speech))
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")  # as most clients do: at once
        again = await client.until("conversation.item.input_audio_transcription.completed")
        assert len(again["transcript"].split()) > 3
        await client.until("response.done")
        await client.send("input_audio_buffer.commit", event_id="mine")
        error = (await client.until("error"))["error"]
        assert error["code"] == "input_audio_buffer_commit_empty" and error["event_id"] == "mine"

    client = play(address, story)
    assert "input_audio_buffer.speech_started" not in client.types()


@pytest.mark.parametrize(("format_", "encoding"), [("audio/pcmu", "mulaw"), ("audio/pcma", "alaw")])
def test_telephone_formats_go_both_ways(
    address: str, speech: bytes, format_: str, encoding: Any
) -> None:
    samples = soxr.resample(np.frombuffer(speech, "<i2"), 16_000, 8_000).astype(np.int16)

    async def story(client: Client) -> None:
        sides = {side: {"format": {"type": format_}} for side in ("input", "output")}
        await client.update(audio=sides)
        await client.speak(from_int16(samples, encoding), 160)
        await client.until("response.done")

    client = play(address, story)
    deltas = client.of("response.output_audio.delta")
    played = sum(len(base64.b64decode(event["delta"])) for event in deltas)
    assert played == pytest.approx(8_000 * 8 / 10, rel=0.01), "8 words at 10 a second"


def test_a_transcription_session_never_replies(address: str, talk: bytes) -> None:
    async def story(client: Client) -> None:
        await client.send(
            "session.update",
            session={
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "m", "language": "en"}}},
            },
        )
        await client.speak(at_24k(talk))
        for _ in range(4):
            await client.until("conversation.item.input_audio_transcription.completed")
        await client.send("response.create")
        assert await client.error() == "invalid_value"

    client = play(address, story, "?intent=transcription")
    assert not [kind for kind in client.types() if kind.startswith("response.")]
    assert len(client.of("conversation.item.input_audio_transcription.delta")) > 8, "live"
    assert client.events[0]["session"]["type"] == "transcription"


def test_a_transcription_without_turn_detection(address: str, speech: bytes) -> None:
    async def story(client: Client) -> None:
        off = {"turn_detection": None, "transcription": {"model": "gpt-realtime-whisper"}}
        session = {"type": "transcription", "audio": {"input": off}}
        await client.send("session.update", session=session)
        for _ in range(2):
            await client.speak(at_24k(speech))
            await client.send("input_audio_buffer.commit")
            await client.until("conversation.item.input_audio_transcription.completed")

    client = play(address, story, "?intent=transcription")
    assert not client.of("input_audio_buffer.speech_started")


def test_text_in_and_text_out(address: str) -> None:
    async def story(client: Client) -> None:
        await client.update(output_modalities=["text"])
        content = [{"type": "input_text", "text": "hello"}]
        item = {"type": "message", "role": "user", "content": content, "id": "mine"}
        await client.send("conversation.item.create", item=item)
        added = await client.until("conversation.item.added")
        assert added["item"]["id"] == "mine" and added["previous_item_id"] is None
        first = {**item, "id": "first", "role": "system"}
        await client.send("conversation.item.create", item=first, previous_item_id="root")
        assert (await client.until("conversation.item.added"))["previous_item_id"] is None
        await client.send("response.create")
        done = (await client.until("response.output_text.done"))["text"]
        assert done == "".join(e["delta"] for e in client.of("response.output_text.delta"))
        await client.until("response.done")
        await client.send("conversation.item.retrieve", item_id="mine")
        assert (await client.until("conversation.item.retrieved"))["item"]["content"] == content
        await client.send("conversation.item.delete", item_id="mine")
        assert (await client.until("conversation.item.deleted"))["item_id"] == "mine"
        await client.send("conversation.item.create", item=first)
        assert await client.error() == "item_create_duplicate_item_id"

    client = play(address, story)
    assert not client.of("response.output_audio.delta")


def test_a_tool_is_called_and_its_output_is_answered(address: str) -> None:
    tool = {"type": "function", "name": "look_up", "description": "d", "parameters": {}}

    async def story(client: Client) -> None:
        await client.update(tools=[tool], output_modalities=["text"], tool_choice="auto")
        content = [{"type": "input_text", "text": "please look_up this"}]
        item = {"type": "message", "role": "user", "content": content}
        await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        call = await client.until("response.function_call_arguments.done")
        assert call["name"] == "look_up" and json.loads(call["arguments"]) == {}
        done = (await client.until("response.done"))["response"]
        assert done["output"][0]["type"] == "function_call"
        answer = {"type": "function_call_output", "call_id": call["call_id"], "output": "42"}
        await client.send("conversation.item.create", item=answer)
        await client.send("response.create")
        assert (await client.until("response.output_text.done"))["text"].startswith("The sim")

    play(address, story)


def test_out_of_band_leaves_the_conversation_alone(address: str) -> None:
    async def story(client: Client) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
        response = {"conversation": "none", "input": [item], "output_modalities": ["text"]}
        await client.send("response.create", response=response)
        await client.until("response.done")

    client = play(address, story)
    assert "conversation.item.added" not in client.types()


@pytest.fixture(scope="module")
def slow() -> Iterator[str]:
    """A chat and a voice that take their time, so that there is something to interrupt."""
    given = models(
        chat_engine=SimChat(10, 30, 200),
        speaker_engine=SimSpeaker(10, 2.5, 1.5),
        transcriber=LocalReplicaSet(sim=sim_transcriber()),
    )
    with served(Config(profile="sim"), given) as address:
        yield address


def made(address: str) -> list[int]:
    counted = httpx.get(f"http://{address}/speech-to-speech/metrics").json()["made"]
    return [counted["chat"]["made"], counted["speaker"]["made"]]


def running(address: str) -> list[int]:
    counted = httpx.get(f"http://{address}/speech-to-speech/metrics").json()["made"]
    return [counted["chat"]["running"], counted["speaker"]["running"]]


def stopped(address: str) -> bool:
    """Both models have stopped: not a token, not a sample more."""
    wait_for(lambda: running(address) == [0, 0], 2)
    before = made(address)
    return settled(lambda: made(address)) == before and min(before) > 0


def test_barge_in_stops_the_models(slow: str, speech: bytes) -> None:
    async def story(client: Client) -> None:
        await client.update(**TRANSCRIBED)
        await client.speak(at_24k(speech))
        await client.until("response.output_audio.delta")
        await client.speak(at_24k(speech[: len(speech) // 4 * 2]), 960)
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "cancelled"
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert await asyncio.to_thread(stopped, slow)
        late = client.types()
        assert late.index("response.done") > max(
            n for n, kind in enumerate(late) if kind == "response.output_audio.delta"
        )

    play(slow, story)


@pytest.mark.parametrize("how", ["cancel", "hang up"])
def test_a_cancelled_reply_and_a_gone_client_stop_the_models(slow: str, how: str) -> None:
    async def story(client: Client) -> None:
        content = [{"type": "input_text", "text": "hello"}]
        item = {"type": "message", "role": "user", "content": content}
        await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        await client.until("response.output_audio.delta")
        await client.send("response.create")
        assert await client.error() == "conversation_already_has_active_response"
        if how == "cancel":
            await client.send("response.cancel")
            assert (await client.until("response.done"))["response"]["status"] == "cancelled"
            await client.send("response.cancel")
            error = (await client.until("error"))["error"]
            assert error["code"] == "response_cancel_not_active"
            assert error["message"].startswith("Cancellation failed")

    play(slow, story)
    assert stopped(slow)


def test_the_client_truncates_what_it_did_not_play(slow: str) -> None:
    async def story(client: Client) -> None:
        await client.update(max_output_tokens=12)
        content = [{"type": "input_text", "text": "hello"}]
        await client.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content}
        )
        await client.send("response.create")
        done = (await client.until("response.done", 20))["response"]
        assert done["status"] == "incomplete"
        assert done["status_details"]["reason"] == "max_output_tokens"
        item = done["output"][0]["id"]
        await client.send(
            "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1300
        )
        assert (await client.until("conversation.item.truncated"))["audio_end_ms"] == 1300
        await client.send("conversation.item.retrieve", item_id=item)
        kept = (await client.until("conversation.item.retrieved"))["item"]["content"][0]
        assert kept["transcript"] == "The sim answers,", "three words at 2.5 a second"

    play(slow, story)


WRONG: list[tuple[str, str]] = [
    ("no json", "invalid_json"),
    ("[]", "invalid_json"),
    ('{"type":"nonsense"}', "unknown_type"),
    ('{"type":["a"]}', "unknown_type"),
    ("{}", "unknown_type"),
    ('{"type":"session.update"}', "missing_required_parameter"),
    ('{"type":"session.update","session":{"audio":7}}', "invalid_value"),
    ('{"type":"session.update","session":{"type":"nothing"}}', "invalid_value"),
    ('{"type":"session.update","session":{"audio":{"output":{"voice":"bob"}}}}', "unknown_voice"),
    (
        '{"type":"session.update","session":{"audio":{"input":{"format":'
        '{"type":"audio/pcm","rate":8000}}}}}',
        "invalid_value",
    ),
    ('{"type":"input_audio_buffer.append"}', "missing_required_parameter"),
    ('{"type":"input_audio_buffer.append","audio":"*"}', "invalid_base64"),
    ('{"type":"input_audio_buffer.append","audio":7}', "missing_required_parameter"),
    ('{"type":"conversation.item.create"}', "missing_required_parameter"),
    ('{"type":"conversation.item.create","item":{"type":"mcp_call"}}', "unsupported_content"),
    (
        '{"type":"conversation.item.create","item":{"type":"message","role":"user",'
        '"content":[{"type":"input_image","image_url":"http://x"}]}}',
        "unsupported_content",
    ),
    ('{"type":"conversation.item.create","item":{"type":"message","role":"x"}}', "invalid_value"),
    ('{"type":"conversation.item.retrieve","item_id":"rci_1"}', "item_not_found"),
    ('{"type":"conversation.item.delete"}', "missing_required_parameter"),
    ('{"type":"conversation.item.truncate","item_id":"x","audio_end_ms":-1}', "invalid_value"),
    ('{"type":"response.create","response":{"output_modalities":["smell"]}}', "invalid_value"),
    ('{"type":"response.cancel","response_id":7}', "invalid_value"),
]


def test_a_wrong_event_gets_an_error_and_the_session_continues(address: str) -> None:
    async def story(client: Client) -> None:
        for sent, code in WRONG:
            await client.socket.send(sent)
            event = await client.until("error")
            assert event["error"]["code"] == code, sent
            assert event["error"]["type"] == "invalid_request_error"
        await client.update(**TRANSCRIBED)

    play(address, story)


def test_audio_may_be_cut_within_a_sample(address: str, speech: bytes) -> None:
    async def story(client: Client) -> None:
        await client.update(**TRANSCRIBED)
        await client.speak(at_24k(speech), 4801)
        heard = await client.until("conversation.item.input_audio_transcription.completed")
        assert len(heard["transcript"].split()) > 3

    play(address, story)


def test_cleared_audio_is_not_transcribed(address: str, speech: bytes) -> None:
    async def story(client: Client) -> None:
        await client.update(
            audio={"input": {"turn_detection": None, "transcription": {"model": "m"}}}
        )
        await client.speak(at_24k(speech))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.send("input_audio_buffer.commit")
        assert await client.error() == "input_audio_buffer_commit_empty"

    play(address, story)


def test_a_whole_minute_at_once_is_accepted(address: str, talk: bytes) -> None:
    """Much faster than it can be heard: the socket is not read meanwhile, and nothing is lost."""

    async def story(client: Client) -> None:
        await client.send("session.update", session={"type": "transcription"})
        await client.speak(at_24k(talk * 4), 1 << 20)
        for _ in range(16):
            await client.until("conversation.item.input_audio_transcription.completed", 60)

    play(address, story, "?intent=transcription")


def test_a_browser_brings_its_key_as_a_subprotocol(address: str) -> None:
    async def go() -> None:
        url = f"ws://{address}/v1/realtime?model=m"
        offered: Any = ["realtime", "openai-insecure-api-key.any", "openai-agents-sdk.0.20"]
        async with connect(url, subprotocols=offered) as socket:
            assert socket.subprotocol == "realtime"
        bad: Any = ["realtime", "openai-insecure-api-key.ek_forged.x"]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url, subprotocols=bad)
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"

    asyncio.run(go())


def test_conversations_beyond_the_limit_are_refused() -> None:
    config = Config.model_validate({"profile": "sim", "limits": {"max_conversations": 1}})
    with served(config) as address:

        async def go() -> None:
            url = f"ws://{address}/v1/realtime"
            async with connect(url):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await connect(url)
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"] == "5"
            async with connect(url) as socket:
                await socket.recv()

        asyncio.run(go())


def test_an_idle_conversation_ends_so_that_a_client_may_come_back() -> None:
    config = Config.model_validate({"profile": "sim", "conversation": {"idle_timeout_s": 0.5}})
    with served(config) as address:

        async def go() -> None:
            async with connect(f"ws://{address}/v1/realtime") as socket:
                frames = [json.loads(frame)["type"] async for frame in socket]
                assert frames == ["session.created"], "no error event: clients take it for theirs"
                assert socket.close_code == 1000 and socket.close_reason == "idle_timeout"

        asyncio.run(go())


@pytest.mark.parametrize("begin_first", [True, False], ids=["vllm's example", "GuideLLM"])
def test_vllms_dialect_on_the_same_url(address: str, speech: bytes, begin_first: bool) -> None:
    async def go() -> list[Frame]:
        async with connect(f"ws://{address}/v1/realtime") as socket:
            client = Client(socket)
            hello = await client.until("session.created")
            assert hello["id"].startswith("sess_") and isinstance(hello["created"], int)
            await client.send("session.update", model="voxtral")
            for _ in range(2):
                if begin_first:
                    await client.send("input_audio_buffer.commit", final=False)
                await client.speak(speech, 3200)
                await client.until("transcription.delta")  # while it is still being said
                if not begin_first:
                    await client.send("input_audio_buffer.commit")
                await client.send("input_audio_buffer.commit", final=True)
                done = await client.until("transcription.done")
                assert done["usage"]["total_tokens"] > 0
            await client.send("nonsense")
            error = await client.until("error")
            assert isinstance(error["error"], str) and error["code"] == "unknown_event"
            await client.send("input_audio_buffer.commit", final=True)
            assert (await client.until("transcription.done"))["text"] == "", "empty, and alive"
            return client.events

    events = asyncio.run(go())
    first = events[: [event["type"] for event in events].index("transcription.done") + 1]
    deltas = "".join(event["delta"] for event in first if event["type"] == "transcription.delta")
    assert deltas == first[-1]["text"] and len(deltas.split()) > 3


def test_query_parameters_without_effect_are_listed(address: str) -> None:
    async def go() -> None:
        url = f"ws://{address}/v1/realtime?model=any&intent=conversation&call_id=rtc_1&x%20y=1"
        async with connect(url) as socket:
            session = json.loads(await socket.recv())["session"]
            assert session["ignored"] == ["query.intent", "query.call_id", "?"]

    asyncio.run(go())
