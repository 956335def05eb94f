"""Who is let in, through real sockets: in time, in every dialect, and as many as fit."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from loadtest.speech import wav
from serve_app.api.server import MANY_SESSIONS, Server
from serve_app.config import Config
from serve_app.config.admission import AdmissionConfig
from serve_app.errors import ClientError
from tests.api.sockets.test_live_socket import PATH
from tests.fakes import admitting_all, models, served

FIT = 5
FULL = AdmissionConfig(cpu_share=1e-9, min_sessions=FIT)
"""Exactly `FIT` sessions fit, no matter how busy the machine is."""

RETRY_S = 7


def config(**more: Any) -> Config:
    limits = {"retry_after_s": RETRY_S}
    return Config.model_validate(
        {"profile": "sim", "admission": FULL.model_dump(), "limits": limits, **more}
    )


@pytest.fixture
def address() -> Iterator[str]:
    with served(config(), models()) as address:
        yield address


async def ask(address: str, path: str = PATH) -> ClientConnection | InvalidStatus:
    try:
        return await connect(f"ws://{address}{path}", max_size=None)
    except InvalidStatus as refused:
        return refused


def test_a_burst_gets_as_many_places_as_there_are(address: str) -> None:
    async def go() -> None:
        answers = await asyncio.gather(*(ask(address) for _ in range(60)))
        inside = [it for it in answers if isinstance(it, ClientConnection)]
        refused = [it.response for it in answers if isinstance(it, InvalidStatus)]
        assert len(inside) == FIT
        assert {answer.status_code for answer in refused} == {503}
        bodies = {json.loads(answer.body)["error"]["code"] for answer in refused}
        assert bodies == {"overloaded"}
        waits = [int(answer.headers["Retry-After"]) for answer in refused]
        assert min(waits) >= RETRY_S and max(waits) <= 2 * RETRY_S and len(set(waits)) > 1
        for socket in inside:
            assert json.loads(await socket.recv())["type"] == "session"
            await socket.close()

    asyncio.run(go())


def test_who_leaves_makes_room(address: str) -> None:
    async def go() -> None:
        inside = [await ask(address) for _ in range(FIT)]
        assert isinstance(await ask(address), InvalidStatus)
        leaving = inside.pop()
        assert isinstance(leaving, ClientConnection)
        await leaving.close()
        deadline = time.monotonic() + 5
        while isinstance(again := await ask(address), InvalidStatus):
            assert time.monotonic() < deadline
        for socket in [*inside, again]:
            assert isinstance(socket, ClientConnection)
            await socket.close()

    asyncio.run(go())


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    """Nobody fits."""
    nobody = {"admission": FULL.model_copy(update={"min_sessions": 0}).model_dump()}
    with served(config(**nobody), models()) as address:
        yield address


@pytest.mark.parametrize("path", [PATH, "/v1/realtime", "/ws"])
def test_a_handshake_is_refused_before_it_is_accepted(closed: str, path: str) -> None:
    refused = asyncio.run(ask(closed, path))
    assert isinstance(refused, InvalidStatus) and refused.response.status_code == 503
    assert json.loads(refused.response.body)["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"json": {"input": "hello"}}),
        ("/v1/chat/completions", {"json": {"messages": [{"role": "user", "content": "hello"}]}}),
        ("/v1/transcribe", {"content": wav(b"\0\0" * 1600)}),
        ("/v1/audio/transcriptions", {"files": {"file": ("a.wav", wav(b"\0\0" * 1600))}}),
        ("/v1/jobs", {"files": {"file": ("a.wav", wav(b"\0\0" * 1600))}}),
        ("/transcribe/stream", {"content": b"\0\0" * 1600}),
    ],
)
def test_rest_asks_at_the_same_door(closed: str, path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(f"http://{closed}{path}", timeout=10, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert int(answer.headers["Retry-After"]) >= RETRY_S


def test_status_can_be_asked_while_nobody_fits(closed: str) -> None:
    assert httpx.get(f"http://{closed}/v1/ready", timeout=10).status_code == 200
    told = httpx.get(f"http://{closed}/v1/metrics", timeout=10).json()["metrics"]
    assert "voxray_quality_level" in json.dumps(told)


@pytest.mark.parametrize(
    ("sessions", "in_progress", "fits"),
    [(MANY_SESSIONS, 1, False), (MANY_SESSIONS, 0, True), (MANY_SESSIONS - 1, 7, True)],
)
def test_beside_many_sessions_recordings_come_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, sessions: int, in_progress: int, fits: bool
) -> None:
    monkeypatch.setattr("serve_app.api.server.cores", lambda: 2)
    server: Any = SimpleNamespace(
        sessions=SimpleNamespace(count=sessions),
        uploads=SimpleNamespace(in_progress=in_progress),
        admission=admitting_all(),
        retry_after_s=lambda: RETRY_S,
    )
    with nullcontext() if fits else pytest.raises(ClientError, match="beside live sessions"):
        Server._admit_recording(server, "acme")
