"""`WS /ws` and the TCP port: one utterance in, everything that comes of it out."""

import asyncio
import base64
import io
import json
import socket
import struct
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from deployments.interfaces import NO_OPTIONS
from loadtest.speech import wav
from serve_app.api.sockets import conversation_socket
from serve_app.config import Config
from tests.fakes import models, served
from tests.ports import free_port

Message = dict[str, Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


def audio(pcm: bytes, **fields: Any) -> Message:
    return {"type": "audio", "audio_data": base64.b64encode(wav(pcm)).decode(), **fields}


def exchange(address: str, *messages: Message | str) -> list[Message]:
    """The answers to each message, up to its `conversation_complete`, `error` or `pong`."""

    async def go() -> list[Message]:
        answers = []
        async with connect(f"ws://{address}/ws", max_size=None) as ws:
            answers.append(json.loads(await ws.recv()))
            for message in messages:
                await ws.send(message if isinstance(message, str) else json.dumps(message))
                while answers[-1]["type"] not in ("conversation_complete", "error", "pong"):
                    answers.append(json.loads(await asyncio.wait_for(ws.recv(), 30)))
                answers.append({"type": "-"})
        return answers

    return asyncio.run(go())


def types(answers: list[Message]) -> list[str]:
    return [message["type"] for message in answers if message["type"] != "-"]


def test_audio_is_answered_with_its_transcript_a_reply_and_speech(
    address: str, speech: bytes
) -> None:
    answers = exchange(address, audio(speech), {"type": "ping"}, audio(speech, speak=False))
    assert types(answers) == [
        "connection",
        "transcription",
        "response_text",
        "speech_response",
        "conversation_complete",
        "pong",
        "transcription",
        "response_text",
        "conversation_complete",
    ]
    assert answers[0]["engines"] == dict.fromkeys(
        ("transcriber", "chat", "speaker", "diarizer"), "sim"
    )
    spoken = answers[3]
    file = wave.open(io.BytesIO(base64.b64decode(spoken["audio_data"])))
    assert file.getframerate() == spoken["sample_rate"] == 24_000
    assert file.getnframes() == pytest.approx(24_000 * 8 / 10, rel=0.01)
    assert answers[2]["text"] == "The sim answers, and this is all it"
    assert answers[4]["status"] == "completed" and answers[4]["stages"]["total_ms"] > 0


def test_a_reply_is_streamed_on_request(address: str, speech: bytes) -> None:
    answers = exchange(address, audio(speech, stream=True))
    text = [message for message in answers if message["type"] == "response_text"]
    sound = [message for message in answers if message["type"] == "speech_response"]
    assert len(text) == 9 and text[-1]["final"] and len(sound) == 9 and sound[-1]["final"]
    assert "".join(message["text"] for message in text[:-1]).strip() == text[-1]["text"]


def test_each_mode_sends_its_own_messages(address: str, speech: bytes) -> None:
    assert types(exchange(address, audio(speech, mode="transcribe"))) == [
        "connection",
        "transcription",
        "conversation_complete",
    ]
    understood = exchange(address, audio(speech, mode="understand", prompt="Who speaks?"))
    assert types(understood) == ["connection", "response_text", "conversation_complete"]
    silent = exchange(address, audio(bytes(16_000)))
    assert types(silent)[-1] == "conversation_complete"


def test_understanding_where_no_engine_can(speech: bytes) -> None:
    with served(
        given=models(options={"transcriber": NO_OPTIONS}, engine="pocketsphinx")
    ) as address:
        (_, error, _) = exchange(address, audio(speech, mode="understand", prompt="Who?"))
        assert error["code"] == "understanding_unavailable" and "pocketsphinx" in error["message"]


def test_bare_samples_and_other_containers(address: str, speech: bytes, tmp_path: Path) -> None:
    raw = {"type": "audio", "audio_data": base64.b64encode(speech).decode(), "sample_rate": 16_000}
    text = exchange(address, {**raw, "mode": "transcribe"})[1]["text"]
    assert text == exchange(address, audio(speech, mode="transcribe"))[1]["text"]
    from deployments.encoding import Encoder

    encoder = Encoder("mp3")
    mp3 = base64.b64encode(encoder.push(speech) + encoder.finish()).decode()
    answers = exchange(address, {"type": "audio", "audio_data": mp3, "mode": "transcribe"})
    assert answers[1]["type"] == "transcription" and answers[1]["text"]


def test_what_fails_while_audio_is_decoded_ends_that_connection_only(
    address: str, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(_: bytes) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr(conversation_socket, "decoded", no_room)
    mp3 = base64.b64encode(b"ID3" + bytes(1000)).decode()
    with pytest.raises(ConnectionClosed) as closed:
        exchange(address, {"type": "audio", "audio_data": mp3})
    assert closed.value.rcvd and closed.value.rcvd.code == 1011
    assert "conversation_complete" in types(exchange(address, audio(speech)))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not json", "invalid_json"),
        ({"type": "sing"}, "unknown_type"),
        ({"type": "audio"}, "invalid_message"),
        ({"type": "audio", "audio_data": "%"}, "invalid_base64"),
        ({"type": "audio", "audio_data": ""}, "unreadable_audio"),
        ({"type": "audio", "audio_data": "AAAA"}, "unreadable_audio"),
        ({"type": "audio", "audio_data": "AAAA", "mode": "sing"}, "invalid_message"),
        ({"type": "audio", "audio_data": "AAAA", "speed": 9}, "invalid_message"),
        ({"type": "audio", "audio_data": "AAAA", "voice": "bob"}, "unknown_voice"),
        (
            {"type": "audio", "audio_data": "AAAA", "mode": "understand"},
            "missing_required_parameter",
        ),
        (audio(bytes(32_000 * 61)), "recording_too_long"),
    ],
)
def test_what_is_wrong_is_said_and_the_connection_lives(
    address: str, message: Any, code: str
) -> None:
    answers = exchange(address, message, {"type": "ping"})
    assert types(answers) == ["connection", "error", "pong"] and answers[1]["code"] == code


# TCP.


def on_tcp(port: int) -> Config:
    tcp = {"port": port, "read_timeout_s": 0.5, "max_connections": 3}
    return Config.model_validate({"profile": "sim", "tcp": tcp})


@pytest.fixture(scope="module")
def tcp() -> Iterator[int]:
    port = free_port()
    with served(on_tcp(port)), served(on_tcp(port)):  # two replicas share the port
        yield port


class Wire:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)

    def send(self, message: Any) -> None:
        body = json.dumps(message).encode()
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self) -> Message | None:
        head = self._exactly(4)
        return json.loads(self._exactly(struct.unpack(">I", head)[0])) if head else None

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            piece = self.socket.recv(size - len(got))
            if not piece:
                return b""
            got += piece
        return got

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_tcp_answers_audio_with_one_result(tcp: int, speech: bytes) -> None:
    with Wire(tcp) as wire:
        for _ in range(2):
            wire.send(audio(speech))
            result = wire.receive()
            assert result and result["type"] == "result" and result["status"] == "completed"
            assert len(result["transcription"].split()) > 3
            assert result["response_text"].startswith("The sim")
            assert base64.b64decode(result["audio_data"])[:4] == b"RIFF"
        wire.send({"type": "audio", "audio_data": "%"})
        error = wire.receive()
        assert error and error["code"] == "invalid_base64"
        wire.send({"type": "ping"})
        assert wire.receive() == {"type": "pong"}


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_tcp_a_length_that_lies_ends_the_connection(tcp: int, length: int) -> None:
    with Wire(tcp) as wire:
        wire.socket.sendall(struct.pack(">I", length) + b"x")
        error = wire.receive()
        assert error and error["code"] == "message_too_large"
        assert wire.receive() is None


def test_tcp_half_a_message_and_a_slow_sender(tcp: int, speech: bytes) -> None:
    with Wire(tcp) as wire:
        wire.socket.sendall(struct.pack(">I", 100) + b"{")
        began = time.monotonic()
        error = wire.receive()
        assert error and error["code"] == "idle_timeout" and time.monotonic() - began < 3
    with Wire(tcp) as wire:
        wire.socket.sendall(struct.pack(">I", 100) + b"{")
    with Wire(tcp) as wire:  # those who went away left nothing behind
        wire.send(audio(speech, mode="transcribe"))
        assert wire.receive()


def test_tcp_connections_are_bounded(tcp: int) -> None:
    wires = [Wire(tcp) for _ in range(7)]  # two replicas of three
    try:
        for wire in wires:
            wire.send({"type": "ping"})
        answers = [wire.receive() for wire in wires]
        refused = [a for a in answers if a and a.get("code") == "too_many_conversations"]
        assert 1 <= len(refused) <= 4
        assert answers.count({"type": "pong"}) >= 3
    finally:
        for wire in wires:
            wire.socket.close()


def test_tcp_serves_several_connections_at_once(speech: bytes) -> None:
    results: list[Any] = []

    def talk(port: int) -> None:
        with Wire(port) as wire:
            wire.send(audio(speech, mode="transcribe"))
            results.append(wire.receive())

    with served(on_tcp(port := free_port())):
        threads = [threading.Thread(target=talk, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert [result["status"] for result in results] == ["completed"] * 3


def test_tcp_is_off_unless_configured() -> None:
    def listening() -> set[int]:
        found = psutil.Process().net_connections("tcp")
        return {it.laddr.port for it in found if it.status == psutil.CONN_LISTEN}

    before = listening()
    with served() as address:
        assert listening() - before == {int(address.rsplit(":", 1)[1])}
