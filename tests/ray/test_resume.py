"""Clients on a real cluster whose server dies: they continue, and miss nothing.

What is measured is printed (`pytest -s`): how long nothing came, and what was lost.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from loadtest.percentile import percentile
from tests.api.sockets.test_live_socket import PATH, of
from tests.api.sockets.test_resume import finals
from tests.server import Server, running
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CLIENTS = 20
CHUNK_S = 0.1
GAP_P95_S = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two ingress replicas."""
    two = {"scale": {"min_replicas": 2, "max_replicas": 2}}
    with running(tmp_path_factory.mktemp("resume"), {"profile": "sim", "ingress": two}) as started:
        yield started


@dataclass
class Client:
    """Sends speech as it is spoken. When its connection is lost it continues the session."""

    address: str
    pcm: bytes
    began: float = 0.0
    sent: int = 0
    token: str = ""
    keep_from: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    answered: float = 0.0
    """When the audio was last known to be heard."""
    gap: float = 0.0
    reconnects: int = -1

    async def run(self) -> list[dict[str, Any]]:
        self.began = time.monotonic()
        while not of("closed", self.events):
            with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError):
                await self.connection()
                continue
            await asyncio.sleep(0.1)
        return finals(self.events)

    async def connection(self) -> None:
        async with connect(f"ws://{self.address}{PATH}", max_size=None, open_timeout=5) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "start", **self.start()}))
            self.on_event(json.loads(await socket.recv()))
            self.reconnects += 1
            sending = asyncio.create_task(self.send(socket))
            try:
                async for frame in socket:
                    self.on_event(json.loads(frame))
            finally:
                sending.cancel()

    def start(self) -> dict[str, str]:
        return {"resume": self.token} if self.token else {}

    async def send(self, socket: ClientConnection) -> None:
        """What is kept at once, and the rest as it is spoken."""
        at = self.keep_from * 32
        while at < len(self.pcm):
            behind = self.began + at / 32_000 - time.monotonic()
            await asyncio.sleep(max(0.0, behind))
            await socket.send(self.pcm[at : at + 3200])
            if at % 16_000 == 0:
                await socket.send('{"type":"keepalive"}')
            at += 3200
        await socket.send('{"type":"stop"}')

    def on_event(self, event: dict[str, Any]) -> None:
        assert event["type"] != "error", event
        now = time.monotonic()
        self.gap = max(self.gap, now - (self.answered or now))
        self.answered = now
        self.events.append(event)
        self.token = event.get("resume", self.token)
        self.keep_from = event.get("resume_from_ms", self.keep_from)


def unbroken(server: Server, talk: bytes) -> list[dict[str, Any]]:
    client = Client(server.address, talk)
    told = asyncio.run(client.run())
    assert client.reconnects == 0 and len(told) >= 8
    return told


def haproxy(server: Server) -> int:
    """The process that serves, not the old ones."""
    found = [it for it in server.descendants() if "haproxy" in it.name()]
    return max(found, key=psutil.Process.create_time).pid


def ingress(server: Server) -> int:
    return server.pids("Ingress")[0]


async def with_deaths(server: Server, talk: bytes, victim: Any) -> list[Client]:
    clients = [Client(server.address, talk) for _ in range(CLIENTS)]
    running = [asyncio.create_task(client.run()) for client in clients]
    await asyncio.sleep(5.3)  # in the middle of the second sentence
    os.kill(victim(server), signal.SIGKILL)
    await asyncio.wait_for(asyncio.gather(*running), 120)
    return clients


@pytest.mark.parametrize("victim", [ingress, haproxy])
def test_kill_9_under_twenty_clients_loses_no_word(
    server: Server, talk: bytes, victim: Any
) -> None:
    spoken = talk * 2
    told = unbroken(server, spoken)
    clients = asyncio.run(with_deaths(server, spoken, victim))
    broken = [client for client in clients if client.reconnects]
    gaps = sorted(client.gap for client in broken)
    words = sum(len(final["words"]) for final in told)
    lost = sum(final not in finals(client.events) for client in clients for final in told)
    print(
        f"\nkill -9 {victim.__name__}: {len(broken)} of {CLIENTS} clients reconnected, {words} words "
        f"each, {lost} finals differ, gap p50 {percentile(gaps, 0.5):.2f} s, "
        f"p95 {percentile(gaps, 0.95):.2f} s, max {gaps[-1]:.2f} s"
    )
    assert broken
    for client in clients:
        assert finals(client.events) == told
        assert of("closed", client.events)[0]["metrics"]["finals"] == len(told)
    assert percentile(gaps, 0.95) < GAP_P95_S
    wait_for(lambda: len(server.pids("Ingress")) == 2, 60)
    wait_for(lambda: server.get("/v1/ready"), 60)


def test_the_other_ingress_closes_the_connection_that_was_left_behind(server: Server) -> None:
    async def go() -> None:
        url = f"ws://{server.address}{PATH}"
        old = await connect(url)
        token = json.loads(await old.recv())["resume"]
        for _ in range(6):  # HAProxy deals them out to both
            new = await connect(url)
            await new.send(json.dumps({"type": "start", "resume": token}))
            await new.recv()
            told = json.loads(await new.recv())
            assert told["resumed_from_ms"] == 0
            await asyncio.wait_for(old.wait_closed(), 10)
            assert (old.close_code, old.close_reason) == (1008, "session_resumed")
            old, token = new, told["resume"]
        await old.close()

    asyncio.run(go())
