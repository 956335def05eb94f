"""`WS /ws`: a conversation that is kept, and continued at another server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from deployments.chat.sim import SimChat
from deployments.interfaces import ChatDelta, ChatRequest
from serve_app.config import Config, StorageConfig
from serve_app.security.signing import SigningKeys
from tests.api.sockets.test_conversation_socket import audio
from tests.fakes import models, served

KEYS = SigningKeys([b"k" * 32])
PATIENCE_S = 80
"""A shared machine may stand still for a while."""


class Listening(SimChat):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(1, 1, 4)
        self.seen: list[list[str]] = []

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        self.seen.append([message.role for message in request.messages])
        async for delta in super().reply(request):
            yield delta


CHATS = [Listening(), Listening()]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two with the same key and the same database."""
    folder = str(tmp_path_factory.mktemp("kept"))
    config = Config(profile="sim", storage=StorageConfig(directory=folder))
    one, other = (models(keys=KEYS, chat_engine=chat) for chat in CHATS)
    with served(config, one) as first, served(config, other) as second:
        yield [first, second]


async def ask(socket: ClientConnection, message: Any, *ends: str) -> dict[str, Any]:
    """Sends it; the first answer of one of those types."""
    await socket.send(json.dumps(message))
    while True:
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
        if answer["type"] in ends:
            return answer


def start(**fields: Any) -> dict[str, Any]:
    return {"type": "start", **fields}


async def opened(address: str) -> ClientConnection:
    socket = await connect(f"ws://{address}/ws", max_size=None, open_timeout=PATIENCE_S)
    hello = json.loads(await socket.recv())
    assert "resume" not in hello, "nothing is kept unless it is asked for"
    return socket


COMPLETE = "conversation_complete"


def test_whoever_returns_with_the_token_continues(servers: list[str], speech: bytes) -> None:
    async def go() -> None:
        one, other = await opened(servers[0]), await opened(servers[1])
        begun = await ask(one, start(session_id="mine"), "connection")
        assert begun["session_id"] == "mine" and begun["resume"] and "items" not in begun
        first = await ask(one, audio(speech), COMPLETE)
        assert first["resume"] != begun["resume"] or first["resume"]
        one.transport.abort()
        back = await ask(other, start(resume=first["resume"]), "connection", "error")
        assert (back["session_id"], back["items"]) == ("mine", 2)
        await ask(other, audio(speech), COMPLETE)
        assert CHATS[1].seen[-1][-3:] == ["user", "assistant", "user"]
        await other.close()

    asyncio.run(go())


def test_a_conversation_that_nobody_asked_to_keep_has_no_token(
    servers: list[str], speech: bytes
) -> None:
    async def go() -> None:
        socket = await opened(servers[0])
        assert "resume" not in await ask(socket, audio(speech), COMPLETE)
        late = await ask(socket, start(session_id="late"), "error")
        assert late["code"] == "start_not_first"
        await socket.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_message"),
        ({"session_id": "a", "resume": "b"}, "invalid_message"),
        ({"session_id": "a b"}, "invalid_message"),
        ({"session_id": "a", "more": 1}, "invalid_message"),
        ({"resume": "nonsense"}, "resume_refused"),
        ({"resume": 5}, "invalid_message"),
    ],
)
def test_a_refused_start_leaves_the_connection_open(
    servers: list[str], fields: dict[str, Any], code: str
) -> None:
    async def go() -> None:
        socket = await opened(servers[0])
        assert (await ask(socket, start(**fields), "error"))["code"] == code
        assert (await ask(socket, start(session_id="b"), "connection"))["session_id"] == "b"
        await socket.close()

    asyncio.run(go())


def test_before_its_first_turn_there_is_nothing_to_continue(servers: list[str]) -> None:
    async def go() -> None:
        one, other = await opened(servers[0]), await opened(servers[1])
        token = (await ask(one, start(session_id="a"), "connection"))["resume"]
        refused = await ask(other, start(resume=token), "error")
        assert refused["code"] == "resume_refused"
        assert await ask(other, start(session_id="b"), "connection")
        await one.close()
        await other.close()

    asyncio.run(go())


def test_the_connection_that_was_left_behind_is_closed(servers: list[str], speech: bytes) -> None:
    async def go() -> None:
        one, other = await opened(servers[0]), await opened(servers[0])
        await ask(one, start(session_id="a"), "connection")
        token = (await ask(one, audio(speech, speak=False), COMPLETE))["resume"]
        await ask(other, start(resume=token), "connection")
        with pytest.raises(ConnectionClosed):
            await one.recv()
        assert (one.close_code, one.close_reason) == (1008, "session_resumed")
        await other.close()

    asyncio.run(go())


def test_a_conversation_lives_without_its_database(
    tmp_path: Path, speech: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("VOXRAY_DATABASE_URL", f"sqlite+aiosqlite:///{file}/voxray.db")
    config = Config(profile="sim", storage=StorageConfig(directory=str(tmp_path)))

    async def go(address: str) -> None:
        socket = await opened(address)
        await ask(socket, start(session_id="a"), "connection")
        for _ in range(2):
            told = await ask(socket, audio(speech, speak=False), COMPLETE)
            assert told["status"] == "completed"
        other = await opened(address)
        refused = await ask(other, start(resume=told["resume"]), "error")
        assert refused["code"] == "storage_unavailable"
        await socket.close()
        await other.close()

    with served(config, models(keys=KEYS)) as address:
        asyncio.run(go(address))
