"""Reference clients on a real cluster whose server dies: they continue, and miss nothing.

What is measured is printed (`pytest -s`): how long nothing came, and what was lost.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect

from loadtest.percentile import percentile
from serve_app.client import (
    ConnectionResumed,
    ErrorNotice,
    Final,
    LiveTranscription,
    SessionClosed,
    paced,
)
from tests.api.sockets.test_live_socket import PATH
from tests.api.sockets.test_resume import KEPT
from tests.server import Server, running
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CLIENTS = 20
MOST_AWAY_P95_S = {"ingress": 3.0, "haproxy": 30.0}
"""The other ingress is there at once; Serve takes some seconds to replace the only HAProxy."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two ingress replicas."""
    two = {"scale": {"min_replicas": 2, "max_replicas": 2}}
    with running(tmp_path_factory.mktemp("resume"), {"profile": "sim", "ingress": two}) as started:
        yield started


@dataclass
class Told:
    """What a reference client told its user."""

    finals: list[dict[str, Any]] = field(default_factory=list)
    away_s: list[float] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)


async def spoken(pcm: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(pcm), 3200):
        yield pcm[at : at + 3200]


async def transcribed(server: Server, pcm: bytes) -> Told:
    told = Told()
    async with LiveTranscription(server.url) as live:
        live.stream(paced(spoken(pcm)))
        async for event in live:
            match event:
                case Final():
                    told.finals.append({name: asdict(event)[name] for name in KEPT})
                case ConnectionResumed(_, away_s):
                    told.away_s.append(away_s)
                case SessionClosed(metrics):
                    told.metrics = metrics
                case ErrorNotice():
                    raise AssertionError(event)
    return told


def haproxy(server: Server) -> int:
    """The process that serves, not the old ones."""
    found = [it for it in server.descendants() if it.name() == "haproxy"]
    return max(found, key=psutil.Process.create_time).pid


def ingress(server: Server) -> int:
    return server.pids("Ingress")[0]


async def with_deaths(server: Server, pcm: bytes, victim: Any) -> list[Told]:
    clients = [asyncio.create_task(transcribed(server, pcm)) for _ in range(CLIENTS)]
    await asyncio.sleep(5.3)  # in the middle of the second sentence
    os.kill(victim(server), signal.SIGKILL)
    return await asyncio.wait_for(asyncio.gather(*clients), 120)


@pytest.mark.parametrize("victim", [ingress, haproxy])
def test_kill_9_under_twenty_clients_loses_no_word(
    server: Server, talk: bytes, victim: Any
) -> None:
    pcm = talk * 2
    whole = asyncio.run(transcribed(server, pcm))
    assert not whole.away_s and len(whole.finals) >= 8
    clients = asyncio.run(with_deaths(server, pcm, victim))
    away = sorted(max(client.away_s) for client in clients if client.away_s)
    words = sum(len(final["words"]) for final in whole.finals)
    wrong = sum(final not in client.finals for client in clients for final in whole.finals)
    print(
        f"\nkill -9 {victim.__name__}: {len(away)} of {CLIENTS} clients resumed, {words} words "
        f"each, {wrong} finals differ, away p50 {percentile(away, 0.5):.2f} s, "
        f"p95 {percentile(away, 0.95):.2f} s, max {away[-1]:.2f} s"
    )
    for client in clients:
        assert client.finals == whole.finals
        assert client.metrics["finals"] == len(whole.finals)
    assert percentile(away, 0.95) < MOST_AWAY_P95_S[victim.__name__]
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
