"""Model replicas that freeze (SIGSTOP) under live sessions, on a real Ray cluster."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.api.sockets.test_live_socket import PATH, chunks, converse, of, words
from tests.server import Server, running
from tests.waiting import until, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

FOUND_S = 5.0
"""What voxray promises."""

CHUNK_S = 0.1
FROZEN_AT = 20
"""The chunk in the middle of the first sentence."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two transcribers, one VAD."""
    two = {"scale": {"min_replicas": 2, "max_replicas": 2}}
    one = {"scale": {"min_replicas": 1, "max_replicas": 1}}
    args = {"profile": "sim", "transcriber": two, "vad": one, "ingress": one}
    with running(tmp_path_factory.mktemp("frozen"), args) as started:
        yield started


class Listener:
    """One session, and when each of its events came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.came_at: list[float] = []
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for frame in self.socket:
            self.events.append(json.loads(frame))
            self.came_at.append(time.monotonic())

    def longest_gap(self, since: float) -> float:
        times = [since, *(at for at in self.came_at if at > since)]
        return max(b - a for a, b in pairwise(times))


async def talking(
    server: Server, pcm: bytes, freeze: Callable[[list[Listener]], Awaitable[None]]
) -> list[Listener]:
    """Six people say the same at their own pace; `freeze` happens in the first sentence."""
    listeners = [Listener(await connect(f"ws://{server.address}{PATH}")) for _ in range(6)]
    freezing: asyncio.Task[None] | None = None
    for number, chunk in enumerate(chunks(pcm)):
        if number == FROZEN_AT:
            freezing = asyncio.ensure_future(freeze(listeners))
        for listener in listeners:
            await listener.socket.send(chunk)
        await asyncio.sleep(CHUNK_S)
    assert freezing
    await freezing
    for listener in listeners:
        await listener.socket.send('{"type":"stop"}')
    await asyncio.gather(*(listener.task for listener in listeners))
    return listeners


def test_sessions_go_on_elsewhere_when_their_transcriber_freezes(
    server: Server, talk: bytes
) -> None:
    unbroken = words(converse(server.address, *chunks(talk))[0])
    victim = server.pids("Transcriber")[0]
    frozen_at = 0.0

    async def freeze(_: list[Listener]) -> None:
        nonlocal frozen_at
        os.kill(victim, signal.SIGSTOP)
        frozen_at = time.monotonic()

    try:
        for listener in asyncio.run(asyncio.wait_for(talking(server, talk, freeze), 120)):
            assert words(listener.events) == unbroken
            assert not of("error", listener.events)
            assert listener.longest_gap(frozen_at) < FOUND_S
    finally:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)


def test_clients_are_told_when_there_is_no_other_and_lose_nothing_when_it_wakes_up(
    server: Server, talk: bytes
) -> None:
    unbroken = words(converse(server.address, *chunks(talk))[0])
    (victim,) = server.pids("Vad")

    async def freeze(listeners: list[Listener]) -> None:
        os.kill(victim, signal.SIGSTOP)
        began = time.monotonic()
        await until(lambda: all(of("error", listener.events) for listener in listeners))
        assert time.monotonic() - began < FOUND_S
        os.kill(victim, signal.SIGCONT)

    for listener in asyncio.run(asyncio.wait_for(talking(server, talk, freeze), 120)):
        (told,) = of("error", listener.events)
        assert told["code"] == "engine_unavailable" and not told["fatal"]
        assert words(listener.events) == unbroken
    assert server.pids("Vad") == [victim], "what it said late was not listened to"


def test_a_frozen_replica_is_replaced(server: Server) -> None:
    wait_for(lambda: len(server.pids("Transcriber")) == 2, 60)  # an earlier test killed one
    victim = server.pids("Transcriber")[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        wait_for(lambda: victim not in server.pids("Transcriber"), 40)
        wait_for(lambda: len(server.pids("Transcriber")) == 2, 40)
    finally:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
