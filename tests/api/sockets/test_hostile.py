"""Bodies and frames meant to do harm: refused in shape, and the next good one is served."""

import asyncio
import base64
import contextlib
import json
import random
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import jwt
import pytest
import websockets
from picows import WSMsgType
from websockets.asyncio.client import connect
from websockets.sync.client import connect as sync_connect

from serve_app.api.sockets.socket import Socket
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal, Scope
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin
from serve_app.security import client_secret
from serve_app.security.keys import key_id
from serve_app.security.signing import SigningKeys
from tests.fakes import served
from tests.waiting import settled, wait_for

GOOD = {"messages": [{"role": "user", "content": "hi"}]}
DEEP = b"[" * 200_000


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served() as address:
        yield address


NOT_JSON = [b"", b"{", b"null", b"\xff\xfe\x00", DEEP, b'{"messages":' + DEEP]
BAD = {
    "/v1/chat/completions": [
        b'{"messages":[]}',
        b'{"messages":[{"role":"king","content":"x"}]}',
        b'{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}',
        b'{"messages":[{"role":"user","content":"x"}],"n":5}',
        b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
        json.dumps({"messages": [{"role": "user", "content": "x" * 400_001}]}).encode(),
        json.dumps(
            {**GOOD, "tools": [{"type": "function", "function": {"name": "f"}}] * 129}
        ).encode(),
    ],
    "/v1/audio/speech": [
        b'{"input":""}',
        b'{"input":["hi"]}',
        b'{"input":"hi","speed":NaN}',
        b'{"input":"hi","speed":1e999}',
        b'{"input":"hi","response_format":"exe"}',
        b'{"input":"hi","voice":{"id":{}}}',
        json.dumps({"input": "x" * 400_001}).encode(),
    ],
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(path, body, id=f"{path}-{number}")
        for path, bad in BAD.items()
        for number, body in enumerate(NOT_JSON + bad)
    ],
)
def test_a_bad_body_is_refused_in_shape(address: str, path: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"http://{address}{path}", content=body, headers=headers, timeout=10)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    good = httpx.post(f"http://{address}/v1/chat/completions", json=GOOD)
    assert good.status_code == 200


def test_half_a_surrogate_pair_is_text_like_any_other(address: str) -> None:
    body = b'{"messages":[{"role":"user","content":"\\ud800"}]}'
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"http://{address}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "text", ["a" * 4096, "\x00\x01 hi", "<speak>hi</speak>", "  ,  hi", "\u202ehi"]
)
def test_any_text_with_words_is_spoken(address: str, text: str) -> None:
    answer = httpx.post(f"http://{address}/v1/audio/speech", json={"input": text})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("audio/") and len(answer.content) > 1000


def test_text_without_words_is_refused(address: str) -> None:
    answer = httpx.post(f"http://{address}/v1/audio/speech", json={"input": "💥" * 1000})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "input"


def test_a_body_that_never_comes_occupies_its_socket_only(address: str) -> None:
    host, port = address.split(":")
    sockets = []
    for _ in range(20):
        slow = socket.create_connection((host, int(port)))
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        sockets.append(slow)
    began = time.monotonic()
    assert httpx.post(f"http://{address}/v1/chat/completions", json=GOOD).status_code == 200
    assert time.monotonic() - began < 2
    for slow in sockets:
        slow.close()


def test_a_client_that_goes_away_stops_its_answer(address: str) -> None:
    host, port = address.split(":")
    body = json.dumps({"input": "One two three. " * 200}).encode()
    gone = socket.create_connection((host, int(port)))
    gone.sendall(
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    gone.recv(100)
    gone.close()

    def made() -> dict[str, int]:
        metrics = httpx.get(f"http://{address}/speech-to-speech/metrics").json()
        return dict(metrics["made"]["speaker"])

    before = wait_for(lambda: (it := made())["running"] == 0 and it, 30)
    assert settled(made) == before


def test_the_largest_event_is_taken_and_a_larger_one_closes_the_socket(address: str) -> None:
    async def go() -> None:
        async with connect(f"ws://{address}/v1/realtime", max_size=None) as ws:
            await ws.recv()
            await ws.send(
                '{"type":"session.update","session":{"type":"transcription",'
                '"audio":{"input":{"turn_detection":null}}}}'
            )
            await ws.recv()
            audio = base64.b64encode(bytes(11 << 20)).decode()  # 15 MiB of base64
            await ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await ws.send('{"type":"nonsense"}')
            async with asyncio.timeout(30):
                while json.loads(await ws.recv())["type"] != "error":
                    continue
            with pytest.raises(websockets.ConnectionClosed):
                await ws.send("x" * (17 << 20))
                while True:
                    await ws.recv()
            assert ws.close_code == 1009

    asyncio.run(go())


def test_a_storm_of_events_harms_nobody_else(address: str) -> None:
    async def go() -> None:
        async with connect(f"ws://{address}/v1/realtime") as storm:
            for _ in range(3000):
                await storm.send('{"type":"response.cancel"}')
            async with connect(f"ws://{address}/v1/realtime") as calm:
                async with asyncio.timeout(5):
                    assert json.loads(await calm.recv())["type"] == "session.created"
            storm.transport.abort()  # it does not read, so a handshake would not end

    asyncio.run(go())


def test_items_are_bounded(address: str) -> None:
    async def go() -> str:
        async with connect(f"ws://{address}/v1/realtime") as ws:
            item = {"type": "message", "role": "user", "content": []}
            for _ in range(513):
                await ws.send(json.dumps({"type": "conversation.item.create", "item": item}))
            async with asyncio.timeout(20):
                while True:
                    event = json.loads(await ws.recv())
                    if event["type"] == "error":
                        return str(event["error"]["code"])

    assert asyncio.run(go()) == "too_many_items"


KEY = b"k" * 64
KEYS = SigningKeys([KEY])
ACME = Principal("acme", "k1")


def secret(**changed: Any) -> str:
    bound = {"owner": ACME, "scope": Scope.REALTIME}
    asked = {"session": {"type": "realtime"}, "expires_at": 100, "nonce": "n", **bound, **changed}
    return client_secret.mint(KEYS, **asked)


def token(algorithm: str = "HS256", without: str = "", **changed: Any) -> str:
    """A secret that `mint` would not make."""
    made = secret().removeprefix("ek_")
    claims = jwt.decode(made, options={"verify_signature": False}) | changed
    claims.pop(without, None)
    headers = {"kid": key_id(KEY)}
    return "ek_" + jwt.encode(claims, "" if algorithm == "none" else KEY, algorithm, headers)


def test_a_client_secret_is_worth_what_was_signed() -> None:
    opened = client_secret.opened(KEYS, secret(), 99.0)
    assert opened.session == {"type": "realtime"}
    assert opened.owner == Principal("acme", "k1", frozenset({Scope.REALTIME}))


@pytest.mark.parametrize(
    "forged",
    [
        lambda: secret()[:-2],
        lambda: secret().replace(".", "A.", 1),
        lambda: secret().split(".")[0] + ".",
        lambda: client_secret.mint(SigningKeys([b"o" * 32]), {}, 100, "n", ACME, Scope.REALTIME),
        lambda: token(algorithm="none"),
        lambda: token(algorithm="HS512"),
        lambda: token(aud="elsewhere"),
        lambda: token(iss="somebody"),
        lambda: token(without="exp"),
        lambda: token(session="A" * 100),
        lambda: token(session=5),
        lambda: token(without="tenant"),
        lambda: token(without="key"),
        lambda: token(scope="everything"),
        lambda: "ek_",
        lambda: "ek_é.é",
        lambda: "ek_" + "A" * 5000,
    ],
)
def test_a_forged_secret_opens_nothing(forged: Any) -> None:
    with pytest.raises(ClientError, match="is invalid"):
        client_secret.opened(KEYS, forged(), 1.0)


def test_a_secret_expires_and_has_a_size() -> None:
    with pytest.raises(ClientError, match="has expired"):
        client_secret.opened(KEYS, secret(), 100.0)
    noise = random.Random(1).randbytes(20_000).hex()
    with pytest.raises(ClientError, match="too large"):
        secret(session={"instructions": noise})


def test_bad_keys_leave_nothing_behind() -> None:
    def depth(error: BaseException) -> int:
        return len(list(traceback.walk_tb(error.__traceback__)))

    depths = set()
    for _ in range(3):
        with pytest.raises(ClientError) as refused:
            client_secret.opened(KEYS, "ek_nonsense", 1.0)
        depths.add(depth(refused.value))
    assert len(depths) == 1


SOCKETS = ["/v1/transcribe/stream", "/v1/realtime", "/ws"]


def upgraded(address: str, path: str) -> socket.socket:
    """A raw WebSocket, to send what a library would not."""
    host, port = address.split(":")
    raw = socket.create_connection((host, int(port)), timeout=10)
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert raw.recv(12) == b"HTTP/1.1 101"
    return raw


def masked(first: int, payload: bytes = b"") -> bytes:
    """A frame: its first byte, and up to 125 bytes under a mask of zeros."""
    return bytes([first, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def ending(raw: socket.socket) -> bytes:
    """The last bytes until the server closes."""
    last = b""
    with contextlib.suppress(ConnectionError):
        while piece := raw.recv(1 << 16):
            last = (last + piece)[-100:]
    return last


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("frame", [masked(0x81), masked(0x82), masked(0x89, b"x" * 100)])
def test_a_flood_of_small_frames_is_ended(address: str, path: str, frame: bytes) -> None:
    with upgraded(address, path) as raw:
        sending = threading.Thread(target=flooded, args=(raw, frame * 100_000))
        sending.start()
        last = ending(raw)
        sending.join()
    assert (1008).to_bytes(2) in last


def flooded(raw: socket.socket, frames: bytes) -> None:
    with contextlib.suppress(OSError):
        raw.sendall(frames)


def test_a_burst_is_read_slowly_and_answered_whole(address: str) -> None:
    async def go() -> None:
        async with connect(f"ws://{address}/v1/transcribe/stream") as ws:
            for _ in range(3000):
                await ws.send('{"type":"keepalive"}')
            await ws.send('{"type":"stop"}')
            async with asyncio.timeout(20):
                said = [json.loads(frame)["type"] async for frame in ws]
            assert said[-1] == "closed" and ws.close_code == 1000

    asyncio.run(go())


class PongTransport:
    is_close_frame_sent = False

    def __init__(self) -> None:
        self.pongs: list[bytes] = []

    def send_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)


def test_pings_are_not_answered_to_a_client_that_does_not_read() -> None:
    raw: Any = PongTransport()
    paused = Socket(Metrics(), 100, Origin())
    paused._paused = True
    frame: Any = SimpleNamespace(
        msg_type=WSMsgType.PING, rsv1=0, rsv2=0, rsv3=0, get_payload_as_bytes=lambda: b"hi"
    )
    paused.on_ws_frame(raw, frame)
    assert raw.pongs == []
    paused._paused = False
    paused.on_ws_frame(raw, frame)
    assert raw.pongs == [b"hi"]


def test_a_ping_with_reserved_bits_breaks_the_protocol(address: str) -> None:
    with upgraded(address, "/v1/realtime") as raw:
        raw.sendall(masked(0xC9))
        assert (1002).to_bytes(2) in ending(raw)


def test_a_query_of_too_many_fields_is_refused(address: str) -> None:
    query = "&".join(f"a{number}=1" for number in range(30))
    with (
        pytest.raises(websockets.InvalidStatus) as refused,
        sync_connect(f"ws://{address}/v1/realtime?{query}"),
    ):
        pass
    assert refused.value.response.status_code == 400


def test_an_event_of_too_many_values_is_refused_and_the_session_lives(address: str) -> None:
    with sync_connect(f"ws://{address}/v1/realtime", max_size=None) as ws:
        ws.recv()
        ws.send("[" + "1," * 4_000_000 + "1]")
        assert json.loads(ws.recv(10))["error"]["code"] == "message_too_large"
        ws.send('{"type":"nonsense","event_id":"mine"}')
        assert json.loads(ws.recv(10))["error"]["event_id"] == "mine"


def socket_io(address: str) -> Any:
    return sync_connect(f"ws://{address}/socket/?EIO=4&transport=websocket")


def test_socket_io_gives_the_place_of_an_ended_session_back() -> None:
    def active() -> int:
        return int(httpx.get(f"http://{there}/v1/health").json()["active_sessions"])

    with served() as there, socket_io(there) as ws:
        ws.recv(5)
        ws.send("40")
        ws.recv(5)
        assert active() == 1
        ws.send('42["audio:stop"]')
        assert "transcription:end" in ws.recv(5)
        wait_for(lambda: active() == 0)


def test_socket_io_takes_one_attachment_a_message(address: str) -> None:
    with socket_io(address) as ws:
        ws.recv(5)
        ws.send("40")
        ws.recv(5)
        ws.send('459-["audio:chunk",{"_placeholder":true,"num":0}]')
        ws.send('42["audio:chunk","@"]')
        assert "invalid_base64" in ws.recv(5), "the packet before it waits for nothing"
