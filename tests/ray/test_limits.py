"""Two ingress replicas behind HAProxy that share limits in a real Redis; one of them is killed."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serve_app.client import ConnectionResumed, LiveTranscription, paced
from serve_app.client.key import VARIABLE
from serve_app.usage.ledger import WRITE_S
from tests.api.sockets.test_live_socket import PATH
from tests.identity.keys import bearer, key_of, keyed
from tests.server import Server, running
from tests.stores import redis_server
from tests.waiting import settled, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

MOST_SESSIONS, MOST_REQUESTS = 5, 30
TWO = {"scale": {"min_replicas": 2, "max_replicas": 2}}
TENANTS = {
    "few": {"limits": {"sessions": MOST_SESSIONS}},
    "slow": {"limits": {"requests_per_minute": MOST_REQUESTS}},
}
SPEAKERS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    keys = keyed(folder / "keys", "few", "slow", "speaking", "other")
    args = {"profile": "sim", "ingress": TWO, "tenants": TENANTS}
    args["auth"] = {"key_file": keys.key_file}
    with redis_server() as redis, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_REDIS_URL", redis.url)
        with running(folder, args) as started:
            yield started


def connections(server: Server) -> dict[int, int]:
    """What HAProxy has open at each ingress replica."""
    found = {}
    for pid in server.pids("Ingress"):
        all_ = psutil.Process(pid).net_connections("tcp")
        own = {it.laddr.port for it in all_ if it.status == psutil.CONN_LISTEN}
        came = [it for it in all_ if it.status == psutil.CONN_ESTABLISHED and it.laddr.port in own]
        found[pid] = len(came)
    return found


def is_open(socket: ClientConnection) -> bool:
    try:
        while True:
            socket.recv(0)
    except TimeoutError:
        return True
    except ConnectionClosed as closed:
        assert closed.rcvd and closed.rcvd.code == 1008, closed
        return False


def test_sessions_are_limited_over_both_replicas(server: Server) -> None:
    url = f"ws://{server.address}{PATH}"
    with ExitStack() as all_:
        opened, refused = [], 0
        for _ in range(2 * MOST_SESSIONS):
            try:
                opened.append(all_.enter_context(connect(url, additional_headers=bearer("few"))))
            except InvalidStatus as error:
                assert error.response.status_code == 429
                refused += 1
        assert min(connections(server).values()) > 0, "both serve"
        assert settled(lambda: sum(map(is_open, opened)), quiet_s=2) == MOST_SESSIONS
        assert refused, "who comes later is refused at the door"
        with connect(url, additional_headers=bearer("other")) as another:
            assert is_open(another)

    def opens() -> bool:
        try:
            with connect(url, additional_headers=bearer("few")) as again:
                return is_open(again)
        except InvalidStatus:
            return False

    wait_for(opens)


def test_requests_are_limited_over_both_replicas(server: Server) -> None:
    answers = Counter(
        httpx.get(f"{server.url}/v1/models", headers=bearer("slow")).status_code
        for _ in range(2 * MOST_REQUESTS)
    )
    assert answers == {200: MOST_REQUESTS, 429: MOST_REQUESTS}


async def spoken(pcm: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(pcm), 3200):
        yield pcm[at : at + 3200]


async def speak(server: Server, pcm: bytes) -> bool:
    """Whether the session had to resume."""
    async with LiveTranscription(server.url) as live:
        live.stream(paced(spoken(pcm)))
        return any([isinstance(event, ConnectionResumed) async for event in live])


async def speak_while_one_dies(server: Server, pcm: bytes) -> int:
    """How many sessions resumed."""
    speaking = [asyncio.create_task(speak(server, pcm)) for _ in range(SPEAKERS)]
    await asyncio.sleep(WRITE_S + 5)
    os.kill(server.pids("Ingress")[0], signal.SIGKILL)
    return sum(await asyncio.wait_for(asyncio.gather(*speaking), 120))


def heard_s(server: Server) -> float:
    asked: dict[str, Any] = {"group_by": "tenant", "tenant": "speaking"}
    answer = httpx.get(f"{server.url}/v1/usage", params=asked, headers=bearer("other"))
    rows = answer.raise_for_status().json()["data"]
    return float(rows[0]["audio_seconds"]) if rows else 0.0


RESUMED_S = 5.0
"""What each session of a lost replica may be counted twice for: docs/tenants.md."""


def test_usage_is_exact_to_the_last_writing_after_kill_9(
    server: Server, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, key_of("speaking"))
    pcm = talk * 2
    whole_s = SPEAKERS * len(pcm) / 32_000
    sessions = asyncio.run(speak_while_one_dies(server, pcm))
    assert 0 < sessions < SPEAKERS
    time.sleep(WRITE_S + 1)
    heard = heard_s(server)
    print(f"{whole_s:.1f} s spoken, {heard:.1f} s counted, {sessions} sessions resumed")
    assert whole_s - sessions * (WRITE_S + 1) <= heard <= whole_s + sessions * RESUMED_S
