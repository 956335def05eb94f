"""Whatever the door, what is used is counted for the tenant and key that came through it."""

import asyncio
import json
import socket as sockets
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest
import socketio
from websockets.sync.client import connect

from deployments.chat.sim import SimChat
from loadtest.speech import wav
from serve_app.api.backend import Backend
from serve_app.identity.principal import ALL, Scope
from tests.api.sockets.test_realtime import at_24k
from tests.fakes import models, served
from tests.identity.keys import bearer, key_of, keyed
from tests.ports import free_port
from tests.usage.served import configured
from tests.waiting import settled

AUTH = {"key": key_of("acme")}
HELLO = {"messages": [{"role": "user", "content": "Hello there"}]}
Row = dict[str, Any]


class Server(NamedTuple):
    address: str
    tcp: int

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@contextmanager
def keyed_server(folder: Path, given: Backend) -> Iterator[Server]:
    port = free_port()
    config = configured(folder / "data", tcp={"port": port})
    users = ALL - {Scope.ADMIN}
    auth = keyed(folder, acme=users, bolt=users, root={Scope.ADMIN})
    with served(config.model_copy(update={"auth": auth}), given) as address:
        yield Server(address, port)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with keyed_server(tmp_path, models()) as server:
        yield server


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    """Its replies take two seconds."""
    with keyed_server(tmp_path, models(chat_engine=SimChat(5, 10, 200))) as server:
        yield server


def rows(server: Server, of: str = "root") -> dict[str, Row]:
    """By tenant; each has one key here."""
    answer = httpx.get(f"{server.url}/v1/usage", headers=bearer(of), timeout=30)
    assert answer.status_code == 200, answer.text
    found = {row["tenant"]: row for row in answer.json()["data"]}
    assert len(found) == len(answer.json()["data"])
    return found


def exchanged(server: Server, path: str, *frames: str | bytes, until: str) -> list[Row]:
    """With acme's key, until an event of that type."""
    events: list[Row] = []
    with connect(f"ws://{server.address}{path}", additional_headers=bearer("acme")) as socket:
        for frame in frames:
            socket.send(frame)
        while not events or events[-1]["type"] != until:
            events.append(json.loads(socket.recv(20)))
    return events


def live(server: Server, pcm: bytes) -> None:
    chunks = [pcm[at : at + 3200] for at in range(0, len(pcm), 3200)]
    exchanged(server, "/v1/transcribe/stream", *chunks, '{"type":"stop"}', until="closed")


def chunked(server: Server, pcm: bytes) -> None:
    url = f"{server.url}/transcribe/stream"
    answer = httpx.post(url, content=iter([pcm]), headers=bearer("acme"), timeout=30)
    assert answer.status_code == 200 and "final" in answer.text


def recording(path: str) -> Callable[[Server, bytes], None]:
    def transcribed(server: Server, pcm: bytes) -> None:
        files = {"file": ("a.wav", wav(pcm))}
        answer = httpx.post(server.url + path, files=files, headers=bearer("acme"), timeout=30)
        assert answer.status_code == 200, answer.text

    return transcribed


def socket_io(server: Server, pcm: bytes) -> None:
    with socketio.SimpleClient() as client:
        client.connect(server.url, auth=AUTH, socketio_path="socket")
        for at in range(0, len(pcm), 32_000):
            client.emit("audio:chunk", pcm[at : at + 32_000])
        client.emit("audio:stop")
        while client.receive(20)[0] != "transcription:end":
            pass


def conversation(server: Server, pcm: bytes) -> None:
    message = {"type": "audio", "audio_data": b64encode(wav(pcm)).decode()}
    exchanged(server, "/ws", json.dumps(message), until="conversation_complete")


def tcp(server: Server, pcm: bytes) -> None:
    audio = {"type": "audio", "audio_data": b64encode(wav(pcm)).decode()}
    with sockets.create_connection(("127.0.0.1", server.tcp), 20) as wire:
        for message in ({"type": "auth", **AUTH}, audio):
            body = json.dumps(message).encode()
            wire.sendall(len(body).to_bytes(4) + body)
        for kind in ("authenticated", "result"):
            length = int.from_bytes(wire.recv(4, sockets.MSG_WAITALL))
            assert json.loads(wire.recv(length, sockets.MSG_WAITALL))["type"] == kind


def realtime(server: Server, pcm: bytes, key: str = key_of("acme")) -> None:
    pcm = at_24k(pcm)
    session = {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm"}}}}
    append = [
        {"type": "input_audio_buffer.append", "audio": b64encode(pcm[at : at + 48_000]).decode()}
        for at in range(0, len(pcm), 48_000)
    ]
    headers = {"Authorization": f"Bearer {key}"}
    url = f"ws://{server.address}/v1/realtime"
    with connect(url, additional_headers=headers, max_size=None) as socket:
        for event in ({"type": "session.update", "session": session}, *append):
            socket.send(json.dumps(event))
        while json.loads(socket.recv(20))["type"] != "response.done":
            pass


def browser(server: Server, pcm: bytes) -> None:
    """With a client secret."""
    url = f"{server.url}/v1/realtime/client_secrets"
    made = httpx.post(url, json={"session": {"type": "realtime"}}, headers=bearer("acme"))
    realtime(server, pcm, made.json()["value"])


HEAR = (
    live,
    chunked,
    recording("/v1/transcribe"),
    recording("/v1/audio/transcriptions"),
    socket_io,
    conversation,
    tcp,
    realtime,
    browser,
)
ANSWER = (conversation, tcp, realtime, browser)
WHAT = ("audio_seconds", "characters", "tokens", "requests")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_door_counts_its_seconds_for_who_came_through_it(
    server: Server, speech: bytes
) -> None:
    before: Row = {}
    for door in HEAR:
        door(server, speech)
        now = rows(server)["acme"]
        used = {name: now[name] - before.get(name, 0) for name in WHAT}
        assert used["audio_seconds"] == pytest.approx(len(speech) / 32_000, abs=0.1), door
        assert (used["characters"] > 0) == (used["tokens"] > 0) == (door in ANSWER), door
        assert used["requests"] == (2 if door is browser else 1), door
        assert now["key"].startswith("static:") and now["jobs"] == 0
        before = now
    assert "bolt" not in rows(server)


def test_speech_and_chat_count_for_each_tenant(server: Server) -> None:
    for tenant, times in (("acme", 1), ("bolt", 2)):
        with httpx.Client(base_url=server.url, headers=bearer(tenant), timeout=30) as client:
            for _ in range(times):
                client.post("/v1/audio/speech", json={"input": "Good morning."})
                told = client.post("/v1/chat/completions", json={**HELLO, "max_tokens": 5}).json()
            assert told["usage"]["total_tokens"] == 7
            mine = rows(server, tenant)
            assert mine.keys() == {tenant}, "others are not seen"
            assert mine[tenant]["requests"] == times * 2 + 1
    found = rows(server)
    assert {it: (found[it]["characters"], found[it]["tokens"]) for it in ("acme", "bolt")} == {
        "acme": (13, 7),
        "bolt": (26, 14),
    }


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_reply_that_is_cancelled_counts_what_was_written(slow: Server, stream: bool) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(headers=bearer("acme")) as client:
            asked = {**HELLO, "stream": stream}
            async with client.stream("POST", f"{slow.url}/v1/chat/completions", json=asked) as it:
                await it.aread()

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(ask(), 0.7))
    tokens = settled(lambda: rows(slow)["acme"]["tokens"])
    assert 10 < tokens < 180


def test_speech_that_is_cancelled_counts_what_was_spoken(server: Server) -> None:
    text = "Good morning to everybody. " * 20
    asked = {"input": text, "response_format": "pcm"}
    headers = bearer("acme")
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=asked, headers=headers) as it:
        next(it.iter_raw(100))
    spoken = settled(lambda: rows(server)["acme"]["characters"])
    assert 0 < spoken < len(text) / 2
