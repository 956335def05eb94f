"""The live socket, for real: uvicorn, WebSockets, a real VAD, the sim."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from serve_app.config import Config, Limits
from tests.fakes import FakeTranscriber, LocalReplicaSet, models, served
from tests.waiting import until, wait_for

PATH = "/v1/transcribe/stream"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served() as address:
        yield address


def limited(**limits: Any) -> Config:
    return Config(profile="sim", limits=Limits(**limits))


async def events_of(socket: ClientConnection) -> list[dict[str, Any]]:
    """All events until the server closes."""
    events: list[dict[str, Any]] = []
    try:
        async for frame in socket:
            events.append(json.loads(frame))
    except websockets.ConnectionClosedError:
        pass
    return events


def converse(
    address: str, *frames: str | bytes | float, stop: bool = True, path: str = PATH
) -> tuple[Any, Any]:
    """Send the frames (a number is a pause) and gather what comes back, with the close code."""

    async def go() -> tuple[list[dict[str, Any]], int | None]:
        async with connect(f"ws://{address}{path}", max_size=None) as socket:
            gathering = asyncio.create_task(events_of(socket))
            for frame in frames:
                if isinstance(frame, float):
                    await asyncio.sleep(frame)
                else:
                    await socket.send(frame)
            if stop:
                await socket.send('{"type":"stop"}')
            return await asyncio.wait_for(gathering, 30), socket.close_code

    return asyncio.run(go())


def chunks(pcm: bytes, ms: int = 100) -> list[bytes]:
    return [pcm[at : at + ms * 32] for at in range(0, len(pcm), ms * 32)]


def of(kind: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def words(events: list[dict[str, Any]]) -> str:
    return " ".join(event["text"] for event in of("final", events))


def test_a_session_from_hello_to_goodbye(server: str, speech: bytes) -> None:
    events, code = converse(server, *chunks(speech))
    assert events[0]["type"] == "session" and events[0]["limits"]["max_buffered_audio_ms"] == 60_000
    (started,), (ended,) = of("speech_started", events), of("speech_ended", events)
    (final,) = of("final", events)
    assert started["audio_ms"] < final["end_ms"] == ended["audio_ms"]
    assert final["engine"] == "sim" and len(final["words"]) >= 6
    assert final["words"][0]["start_ms"] == final["start_ms"]
    closed = events[-1]
    assert closed["type"] == "closed" and closed["metrics"]["audio_ms"] == len(speech) // 32
    assert code == 1000


def test_partials_grow_and_never_go_back(server: str, speech: bytes) -> None:
    paced = [item for chunk in chunks(speech) for item in (chunk, 0.02)]
    events, _ = converse(server, *paced)
    covered = [event["audio_ms"] for event in of("partial", events)]
    assert len(covered) > 5 and covered == sorted(covered)


def test_silence_produces_no_words(server: str) -> None:
    events, _ = converse(server, *chunks(bytes(32_000 * 3)))
    assert [event["type"] for event in events] == ["session", "closed"]


@pytest.mark.parametrize("ms", [10, 37, 250, 1000])
def test_the_size_of_the_chunks_does_not_matter(server: str, speech: bytes, ms: int) -> None:
    whole, _ = converse(server, *chunks(speech))
    events, _ = converse(server, *chunks(speech, ms))
    assert words(events) == words(whole) != ""


def test_base64_chunks_have_the_same_words_as_binary_ones(server: str, speech: bytes) -> None:
    binary, _ = converse(server, *chunks(speech))
    frames = [
        json.dumps({"type": "audio_chunk", "data": base64.b64encode(chunk).decode(), "sequence": n})
        for n, chunk in enumerate(chunks(speech), 1)
    ]
    events, _ = converse(server, *frames)
    assert words(events) == words(binary)


@pytest.mark.parametrize(
    ("rate", "encoding", "channels"),
    [(8000, "mulaw", 1), (8000, "alaw", 1), (48_000, "pcm_f32le", 2), (44_100, "pcm_s16le", 2)],
)
def test_any_format_is_heard(
    server: str, speech: bytes, rate: int, encoding: str, channels: int
) -> None:
    import io

    import soundfile
    import soxr

    floats = np.frombuffer(speech, np.int16).astype(np.float32) / 32768
    there = soxr.resample(floats, 16_000, rate)
    subtype = {"mulaw": "ULAW", "alaw": "ALAW", "pcm_f32le": "FLOAT", "pcm_s16le": "PCM_16"}
    out = io.BytesIO()
    soundfile.write(
        out, np.repeat(there[:, None], channels, 1), rate, format="RAW", subtype=subtype[encoding]
    )
    start = {"type": "start", "sample_rate": rate, "encoding": encoding, "channels": channels}
    size = {"mulaw": 1, "alaw": 1, "pcm_f32le": 4, "pcm_s16le": 2}[encoding] * channels * 441
    raw = out.getvalue()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    events, _ = converse(server, json.dumps(start), *pieces)
    (final,) = of("final", events)
    reference, _ = converse(server, *chunks(speech))
    assert abs(final["end_ms"] - of("final", reference)[0]["end_ms"]) <= 60
    assert events[-1]["metrics"]["audio_ms"] == pytest.approx(len(speech) // 32, abs=2)


def test_finalize_brings_the_final_before_the_silence_does(server: str, speech: bytes) -> None:
    talking = speech[: 32 * 2500]
    events, _ = converse(server, *chunks(talking), '{"type":"finalize"}', 0.5, stop=True)
    final = of("final", events)[0]
    assert final["end_ms"] == 2500 and not of("speech_ended", events)


def test_keepalive_is_answered_with_progress(server: str) -> None:
    events, _ = converse(server, bytes(32_000), 0.3, '{"type":"keepalive"}')
    assert of("keepalive", events)[0]["audio_ms"] == 1000


def test_bad_input_is_named_and_the_session_lives(server: str, speech: bytes) -> None:
    events, code = converse(server, "nonsense", '{"type":"dance"}', b"\1", *chunks(speech))
    assert [(e["code"], e["fatal"]) for e in of("error", events)] == [
        ("invalid_json", False),
        ("unknown_type", False),
        ("odd_byte_count", False),
    ]
    assert words(events) and code == 1000


def test_audio_after_stop_is_refused(speech: bytes) -> None:
    mute = LocalReplicaSet(one=FakeTranscriber(mute=True))
    with served(limited(closing_timeout_s=0.5), models(transcriber=mute)) as address:
        events, _ = converse(address, *chunks(speech), '{"type":"stop"}', bytes(3200), stop=False)
    assert [e["code"] for e in of("error", events)] == ["audio_after_stop", "engine_timeout"]


@pytest.mark.parametrize(
    ("limits", "frames", "code"),
    [
        (
            {"max_buffered_audio_s": 2},
            [bytes(64_000), bytes(64_000), bytes(64_000)],
            "audio_overrun",
        ),
        ({"max_session_s": 2}, [bytes(64_000), 0.2, bytes(64_000)], "session_too_long"),
        ({"max_silence_s": 1}, [bytes(64_000)], "silence_timeout"),
        ({"idle_timeout_s": 0.5}, [], "idle_timeout"),
    ],
)
def test_limits_end_the_session_with_an_error_and_a_close_code(
    limits: dict[str, Any], frames: list[Any], code: str
) -> None:
    with served(limited(**limits)) as address:
        events, close = converse(address, *frames, stop=False)
    (error,) = of("error", events)
    assert error["code"] == code and error["fatal"]
    assert events[-1]["type"] == "closed" and close == 1008


def test_too_many_sessions_are_refused_at_the_handshake() -> None:
    async def go(address: str) -> None:
        async with connect(f"ws://{address}{PATH}"), connect(f"ws://{address}{PATH}"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(f"ws://{address}{PATH}")
            answer = refused.value.response
            assert answer.status_code == 503 and answer.headers["Retry-After"] == "5"
            assert json.loads(answer.body)["error"]["code"] == "too_many_sessions"
        await until(lambda: not active_sessions(address))
        async with connect(f"ws://{address}{PATH}") as socket:
            assert json.loads(await socket.recv())["type"] == "session"

    with served(limited(max_sessions=2)) as address:
        asyncio.run(go(address))


def active_sessions(address: str) -> int:
    return int(httpx.get(f"http://{address}/v1/health").json()["active_sessions"])


def test_a_client_that_vanishes_gives_everything_back_within_two_seconds(speech: bytes) -> None:
    fake = FakeTranscriber(mute=True)

    async def vanish(address: str) -> None:
        sockets = [await connect(f"ws://{address}{PATH}") for _ in range(20)]
        for client in sockets:
            for chunk in chunks(speech):
                await client.send(chunk)
        await until(lambda: active_sessions(address) == 20)
        for client in sockets:
            client.transport.abort()

    with served(given=models(transcriber=LocalReplicaSet(one=fake))) as address:
        asyncio.run(vanish(address))
        wait_for(lambda: not active_sessions(address) and len(fake.left) >= 20, 2)


class Raw:
    """A client that can misbehave."""

    def __init__(self, address: str, buffer: int | None = None) -> None:
        host, port = address.split(":")
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect((host, int(port)))
        self.socket.settimeout(20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101")

    def send(
        self, first: int, payload: bytes, mask: bool = True, length: int | None = None
    ) -> None:
        size = len(payload) if length is None else length
        flag = 0x80 if mask else 0
        if size < 126:
            head = struct.pack(">BB", first, flag | size)
        elif size < 65_536:
            head = struct.pack(">BBH", first, flag | 126, size)
        else:
            head = struct.pack(">BBQ", first, flag | 127, size)
        self.socket.sendall(head + (bytes(4) if mask else b"") + payload)

    def close_code(self) -> int | None:
        """Read until the server says goodbye; its close code, None if it goes without one."""
        with self.socket, contextlib.suppress(ConnectionResetError, EOFError):
            while True:
                first, size = self._exactly(2)
                if size == 126:
                    (size,) = struct.unpack(">H", self._exactly(2))
                payload = self._exactly(size)
                if first == FIN | CLOSE:
                    return int.from_bytes(payload[:2])
        return None

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            if not (more := self.socket.recv(size - len(got))):
                raise EOFError
            got += more
        return got


TEXT, BINARY, CONTINUATION, CLOSE, PING, FIN = 1, 2, 0, 8, 9, 0x80


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(FIN | BINARY, bytes(4), {"mask": False})], 1002),
        ([(FIN | 0x40 | BINARY, bytes(4), {})], 1002),
        ([(FIN | 3, b"", {})], 1002),
        ([(PING, b"", {})], 1002),
        ([(FIN | PING, bytes(126), {})], 1002),
        ([(FIN | CONTINUATION, b"", {})], 1002),
        ([(TEXT, b"a", {}), (FIN | TEXT, b"b", {})], 1002),
        ([(FIN | TEXT, b"\xff\xfe", {})], 1007),
        ([(FIN | BINARY, b"", {"length": 1 << 40})], 1009),
        ([(BINARY, bytes(1 << 20), {})] + [(CONTINUATION, bytes(1 << 20), {})] * 2, 1009),
    ],
)
def test_hostile_frames_get_the_close_code_of_the_rfc(
    server: str, frames: list[tuple[int, bytes, dict[str, Any]]], code: int
) -> None:
    raw = Raw(server)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be gone already
        for first, payload, how in frames:
            raw.send(first, payload, **how)
    assert raw.close_code() == code
    events, _ = converse(server)
    assert events[-1]["type"] == "closed", "the next client is served"


def test_a_flood_of_empty_fragments_is_cut_at_once(server: str) -> None:
    raw = Raw(server)
    flood = struct.pack(">BBI", CONTINUATION, 0x80, 0) * 200_000
    began = time.monotonic()
    raw.send(BINARY, b"")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        raw.socket.sendall(flood)
    assert raw.close_code() == 1009
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "payload", [b"\x03", *(struct.pack(">H", code) for code in (0, 999, 1005, 1006, 1015, 5000))]
)
def test_a_close_code_that_nobody_may_send_is_answered_with_1002(
    server: str, payload: bytes
) -> None:
    raw = Raw(server)
    raw.send(FIN | CLOSE, payload)
    assert raw.close_code() == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1007, 1011, 1014, 3000, 4999])
def test_a_close_code_is_echoed(server: str, code: int) -> None:
    raw = Raw(server)
    raw.send(FIN | CLOSE, struct.pack(">H", code))
    assert raw.close_code() == code


def test_a_message_in_fragments_is_one_message(server: str) -> None:
    raw = Raw(server)
    raw.send(TEXT, b'{"type":')
    raw.send(FIN | PING, b"still here")
    raw.send(FIN | CONTINUATION, b'"stop"}')
    assert raw.close_code() == 1000


def test_a_client_that_stops_reading_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.api.sockets.socket.FRAMES_AT_ONCE", 1_000_000)
    with served(limited(client_write_timeout_s=1, idle_timeout_s=600)) as address:
        raw = Raw(address, buffer=4096)
        raw.socket.setblocking(True)
        with raw.socket, pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                raw.send(FIN | TEXT, b'{"type":"keepalive"}')
        wait_for(lambda: not active_sessions(address), 20)
        errors = httpx.get(f"http://{address}/v1/metrics").json()["errors"]
        assert errors.get("client_too_slow") == 1


def test_an_engine_that_fails_is_said_without_ending_the_session(speech: bytes) -> None:
    from tests.fakes import sim_transcriber

    failing = LocalReplicaSet(one=sim_transcriber(error_rate=1.0))
    with served(given=models(transcriber=failing)) as address:
        events, code = converse(address, *chunks(speech))
    assert [e["code"] for e in of("error", events)] == ["utterance_failed"] and code == 1000


def test_an_ingress_that_goes_away_tells_its_clients_to_connect_again() -> None:
    with contextlib.ExitStack() as stack:
        raw = Raw(stack.enter_context(served()))
        stack.close()
        assert raw.close_code() == 1012


@pytest.mark.parametrize("url", [f"{PATH}?language=en", "/ws?mode=transcribe"])
def test_unknown_parameters_of_a_url_are_refused(server: str, url: str) -> None:
    async def go() -> None:
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await connect(f"ws://{server}{url}")
        answer = refused.value.response
        error = json.loads(answer.body or b"")["error"]
        assert answer.status_code == 400 and error["code"] == "invalid_request"
        assert error["param"] == url.split("?")[1].split("=")[0]

    asyncio.run(go())
