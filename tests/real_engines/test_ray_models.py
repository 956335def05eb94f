"""All three real engines behind Ray Serve: live, a recording, a spoken turn; killed and frozen."""

import asyncio
import io
import json
import signal
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import psutil
import pytest
import websockets

from loadtest.speech import conversation, speak, wav
from tests.server import Server, running, voxray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LOAD_S = 300.0
"""A replica's whole way back: Serve notices, starts a process, vLLM loads."""


@pytest.fixture(scope="module")
def args(voxtral_realtime: Path, chat: Path, small_kokoro: Path) -> dict[str, Any]:
    realtime = {"model": str(voxtral_realtime), "eager": True, "max_streams": 8, "stall_s": 5}
    llm = {"model": str(chat), "eager": True, "max_requests": 8, "max_model_len": 1024}
    return {
        "profile": "gpu",
        "models": {"offline": True},
        "limits": {"closing_timeout_s": LOAD_S},  # longer than an engine takes to come back
        "transcriber": {"voxtral_realtime": realtime},
        "chat": {"vllm": llm | {"tool_parser": "mistral", "stall_s": 5}},
        "speaker": {
            "kokoro": {"model": str(small_kokoro)},
            "styles": {"cheerful": "af_bella"},
        },
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, args: dict[str, Any]) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server"), args, ready_s=240) as started:
        yield started


def test_the_models_say_that_they_are_warm(server: Server) -> None:
    told = server.get("/v1/models/status")
    assert told["status"] == "warm"
    engines = {state["kind"]: state["engine"] for state in told["models"]}
    assert engines == {
        "transcriber": "voxtral-realtime",
        "chat": "vllm",
        "speaker": "kokoro",
        "diarizer": "bic",
    }
    assert {state["state"] for state in told["models"]} == {"warm"}


def transcribe(server: Server, pcm: bytes) -> dict[str, Any]:
    files = {"file": ("talk.wav", wav(pcm))}
    answer = httpx.post(f"{server.url}/v1/transcribe", files=files, timeout=LOAD_S)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_a_recording_has_words_and_segments(server: Server) -> None:
    pcm = conversation()
    result = transcribe(server, pcm)
    assert result["engine"] == "voxtral-realtime" and len(result["segments"]) >= 4
    assert transcribe(server, pcm)["segments"] == result["segments"]


def test_a_live_session_brings_partials_and_finals(server: Server) -> None:
    async def go() -> list[dict[str, Any]]:
        address = f"ws://{server.address}/v1/transcribe/stream"
        async with websockets.connect(address) as socket:
            pcm = conversation()
            for at in range(0, len(pcm), 6400):
                await socket.send(pcm[at : at + 6400])
                await asyncio.sleep(0.1)
            await socket.send(json.dumps({"type": "stop"}))
            return [json.loads(message) async for message in socket]

    told = asyncio.run(go())
    kinds = [event["type"] for event in told]
    assert "error" not in kinds and kinds.count("final") >= 4 and "partial" in kinds, kinds


def test_speech_in_a_blend_and_by_a_style(server: Server) -> None:
    def sound(**asked: Any) -> Any:
        body = {"input": "Hello there.", "response_format": "wav", **asked}
        answer = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)
        return answer

    blend = sound(voice="af_heart(2)+af_bella(1)")
    with wave.open(io.BytesIO(fixed(blend.content))) as file:
        assert file.getframerate() == 24_000
        assert np.abs(np.frombuffer(file.readframes(10**7), "<i2")).max() > 500
    assert sound(style="cheerful").content == sound(voice="af_bella").content
    assert sound(style="angry").json()["error"]["code"] == "unknown_style"
    assert sound(voice="af_heart+nobody").json()["error"]["code"] == "unknown_voice"


def fixed(streamed: bytes) -> bytes:
    """A streamed WAV does not know its length; `wave` must."""
    size = len(streamed) - 44
    return streamed[:40] + size.to_bytes(4, "little") + streamed[44:]


def test_a_spoken_turn(server: Server, tmp_path: Path) -> None:
    """Speech in, Voxtral, the chat model, Kokoro, speech out; then hung up on: all stop."""
    said = tmp_path / "said.wav"
    said.write_bytes(
        wav(np.concatenate([speak("Good morning."), np.zeros(16_000, "<i2")]).tobytes())
    )
    out = tmp_path / "reply.wav"
    voxray("talk", "--server", server.url, "--in", str(said), "--out", str(out), timeout=120)
    assert out.stat().st_size > 20_000
    deadline = time.monotonic() + 20
    while True:
        made = server.get("/speech-to-speech/metrics")["made"]
        if not made["chat"]["running"] and not made["speaker"]["running"]:
            break
        assert time.monotonic() < deadline, made
        time.sleep(0.3)
    time.sleep(2)
    assert server.get("/speech-to-speech/metrics")["made"] == made, "nobody listens any more"


def engines(server: Server, deployment: str) -> list[psutil.Process]:
    """The processes of vLLM below a replica."""
    (replica,) = server.pids(deployment)
    children = psutil.Process(replica).children(recursive=True)
    return [child for child in children if child.name().startswith("VLLM::EngineCor")]


def test_a_frozen_and_a_killed_engine_under_load_lose_nothing(server: Server) -> None:
    """Recordings under way go on in the new replica, and say the same; a reply asked for while
    there is no chat engine is given within its load time."""
    pcm = conversation()  # once: espeak-ng never says it the same way twice
    wanted = transcribe(server, pcm)["text"]
    old = {*server.pids("Transcriber"), *server.pids("Chat")}

    async def go() -> list[Any]:
        works = [asyncio.create_task(asyncio.to_thread(transcribe, server, pcm))]
        await asyncio.sleep(0.5)
        for process in engines(server, "Transcriber"):
            process.send_signal(signal.SIGSTOP)
        for process in engines(server, "Chat"):
            process.kill()
        works.append(asyncio.create_task(asyncio.to_thread(transcribe, server, pcm)))
        return await asyncio.gather(*works, asyncio.to_thread(reply, server))

    first, second, replied = asyncio.run(go())
    assert [first["text"], second["text"]] == [wanted, wanted]
    assert replied["choices"][0]["finish_reason"] in ("length", "stop")
    assert not old & {*server.pids("Transcriber"), *server.pids("Chat")}
    assert not any(psutil.pid_exists(pid) for pid in old)


def reply(server: Server) -> dict[str, Any]:
    """Asked again while it is refused."""
    deadline = time.monotonic() + LOAD_S
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    while time.monotonic() < deadline:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=LOAD_S)
        if answer.status_code == 200:
            break
        assert answer.status_code in (502, 503, 504), answer.text
        time.sleep(1)
    told: dict[str, Any] = answer.json()
    return told
