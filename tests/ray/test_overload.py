"""A real server that has too much to do: it says so, refuses newcomers, loses no word, and is
normal soon after."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.api.sockets.test_live_socket import PATH, chunks, converse, of, words
from tests.server import Server, running

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

STOPPED_S = 2.5
"""How long a replica may stop at most: it would be given up after three seconds."""

NORMAL_WITHIN_S = 5.0
"""With room for a busy machine; `make bench-overload` measures it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Admission by delays, not by processors, which the tests' machine shares with others."""
    args = {"profile": "sim", "admission": {"cpu_share": 1.0, "min_sessions": 1000}}
    with running(tmp_path_factory.mktemp("overload"), args) as started:
        yield started


class Listener:
    """A session, and what it has been told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.changed = asyncio.Event()

    async def listen(self) -> None:
        async for frame in self.socket:
            self.events.append(json.loads(frame))
            self.changed.set()

    @property
    def levels(self) -> list[int]:
        return [event["level"] for event in of("quality", self.events)]

    async def told(self, level: int, within_s: float) -> None:
        """The last level that it has been told is this one."""
        async with asyncio.timeout(within_s):
            while self.levels[-1:] != [level]:
                self.changed.clear()
                await self.changed.wait()


def test_delays_are_told_newcomers_refused_and_nothing_is_lost(
    server: Server, speech: bytes
) -> None:
    expected, _ = converse(server.address, *chunks(speech))
    (vad,) = server.pids("Vad")

    async def speak(socket: ClientConnection) -> None:
        for chunk in chunks(speech):
            await socket.send(chunk)
            await asyncio.sleep(0.1)
        await socket.send('{"type":"stop"}')

    async def go() -> Listener:
        async with connect(f"ws://{server.address}{PATH}", max_size=None) as socket:
            client = Listener(socket)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.listen())
                tasks.create_task(speak(socket))
                await asyncio.sleep(0.5)
                os.kill(vad, signal.SIGSTOP)
                try:
                    await client.told(1, STOPPED_S)
                    with pytest.raises(InvalidStatus) as refused:
                        await connect(f"ws://{server.address}{PATH}")
                finally:
                    os.kill(vad, signal.SIGCONT)
                await client.told(0, NORMAL_WITHIN_S)
            answer = refused.value.response
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
            assert json.loads(answer.body)["error"]["code"] == "overloaded"
            return client

    client = asyncio.run(go())
    assert client.levels[0] == 1 and of("quality", client.events)[0]["reason"] == "slow_models"
    assert words(client.events) == words(expected)
    again, code = converse(server.address, *chunks(speech))
    assert code == 1000 and words(again) == words(expected)
    told = httpx.get(f"{server.url}/v1/status", timeout=20).json()
    assert told["quality_level"] == 0
    counted = json.dumps(httpx.get(f"{server.url}/v1/metrics", timeout=20).json())
    assert "voxray_quality_level_changes_total" in counted
