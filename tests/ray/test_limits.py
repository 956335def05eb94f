"""Two ingress replicas behind HAProxy that share limits in a real Redis; one of them is killed."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serve_app.client import ConnectionResumed, LiveTranscription, paced
from serve_app.usage.ledger import WRITE_S
from tests.api.sockets.test_live_socket import PATH
from tests.identity.keys import bearer, key_of, keyed
from tests.ray.test_logs import of as logged
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
"""Of each tenant that speaks."""

RESTS_AFTER = 7 * 32_000
"""Bytes: in the middle of speech."""


def serving(event: str, server: Server, **fields: str) -> set[str]:
    """The replicas that have logged it."""
    return {it["replica"] for it in logged(event, server) if fields.items() <= it.items()}


def both_serve(server: Server) -> bool:
    """HAProxy knows of the second replica some time after the server is ready."""
    httpx.get(f"{server.url}/v1/models", headers=bearer("other"), timeout=30)
    return len(serving("request_ended", server, tenant="other")) == 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    keys = keyed(folder / "keys", "few", "slow", "speaking", "resting", "other")
    args = {"profile": "sim", "ingress": TWO, "tenants": TENANTS}
    args["auth"] = {"key_file": keys.key_file}
    with redis_server() as redis, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_REDIS_URL", redis.url)
        options = ("--log-format", "json")
        with running(folder, args, ready_s=240, options=options) as started:
            wait_for(lambda: both_serve(started), 120, every_s=0.5)
            yield started


def is_open(socket: ClientConnection) -> bool:
    try:
        while True:
            event = json.loads(socket.recv(0))
            assert event.get("code") in (None, "rate_limit_exceeded"), event
    except TimeoutError:
        return True
    except ConnectionClosed as closed:
        assert closed.rcvd and closed.rcvd.code == 1008, closed
        return False


def test_a_cookie_and_the_last_hour_are_those_of_both_replicas(server: Server) -> None:
    own = {"Origin": server.url}
    with httpx.Client(base_url=server.url, headers=own, timeout=30) as page:
        page.post("/v1/sign_in", json={"key": key_of("other")}).raise_for_status()
        for _ in range(10):  # whichever replica HAProxy chooses
            assert page.get("/v1/sign_in").json()["tenant"] == "other"
        history = wait_for(lambda: last_hour(page), 60, every_s=1)
    assert history["replicas"] == 2
    assert history["samples"][-1]["memory_bytes"] > 0


def last_hour(page: httpx.Client) -> dict[str, Any]:
    """Once there is a sample."""
    found: dict[str, Any] = page.get("/v1/metrics/history").json()
    return found if found.get("samples") else {}


def test_sessions_are_limited_over_both_replicas(server: Server) -> None:
    url = f"ws://{server.address}{PATH}"
    with ExitStack() as all_:
        opened = []
        for _ in range(2 * MOST_SESSIONS):
            with suppress(InvalidStatus):
                opened.append(all_.enter_context(connect(url, additional_headers=bearer("few"))))
        assert settled(lambda: sum(map(is_open, opened)), quiet_s=2) == MOST_SESSIONS
        for _ in range(4):
            with pytest.raises(InvalidStatus, match="429"):
                connect(url, additional_headers=bearer("few"))
        wait_for(lambda: len(serving("session_opened", server, tenant="few")) == 2)
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
    few = MOST_REQUESTS // 5  # a request does not wait for a Redis that is slow
    assert MOST_REQUESTS <= answers[200] <= MOST_REQUESTS + few, "each alone would let in as many"
    assert answers[200] + answers[429] == 2 * MOST_REQUESTS
    let_in = {"tenant": "slow", "status": "200"}
    wait_for(lambda: len(serving("request_ended", server, **let_in)) == 2)


async def spoken(pcm: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(pcm), 3200):
        yield pcm[at : at + 3200]


async def resting(
    live: LiveTranscription, pcm: bytes, go_on: asyncio.Event
) -> AsyncIterator[bytes]:
    """With the words of all that came before the rest."""
    async for piece in paced(spoken(pcm[:RESTS_AFTER])):
        yield piece
    live.finalize()
    await go_on.wait()
    async for piece in paced(spoken(pcm[RESTS_AFTER:])):
        yield piece


async def speak(server: Server, tenant: str, pcm: bytes, go_on: asyncio.Event) -> bool:
    """Whether the session had to resume."""
    async with LiveTranscription(server.url, api_key=key_of(tenant)) as live:
        rests = tenant == "resting"
        live.stream(resting(live, pcm, go_on) if rests else paced(spoken(pcm)))
        return any([isinstance(event, ConnectionResumed) async for event in live])


async def speak_while_one_dies(server: Server, **said: bytes) -> dict[str, int]:
    """How many sessions of each tenant resumed."""
    killed = asyncio.Event()
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        speaking = {
            tenant: [tasks.create_task(speak(server, tenant, pcm, killed)) for _ in range(SPEAKERS)]
            for tenant, pcm in said.items()
        }
        await asyncio.sleep(RESTS_AFTER / 32_000 + WRITE_S + 3)
        os.kill(server.pids("Ingress")[0], signal.SIGKILL)
        killed.set()
    return {tenant: sum(it.result() for it in speaking[tenant]) for tenant in said}


def heard_s(server: Server, tenant: str) -> float:
    """A replica writes all it has counted when it is asked; HAProxy asks both in turn."""
    asked = {"group_by": "", "tenant": tenant}
    answers = [
        httpx.get(f"{server.url}/v1/usage", params=asked, headers=bearer("other"), timeout=30)
        for _ in range(6)
    ]
    return float(answers[-1].raise_for_status().json()["data"][0]["audio_seconds"])


RESUMED_S = 5.0
"""What each session of a lost replica may be counted twice for: docs/tenants.md."""


def test_usage_is_exact_to_the_last_writing_after_kill_9(server: Server, talk: bytes) -> None:
    """To the millisecond, if by then all that was heard is written, and the client knows that."""
    said = {"resting": talk, "speaking": talk * 2}
    resumed = asyncio.run(speak_while_one_dies(server, **said))
    assert min(resumed.values()) > 0, "the replica that was killed had sessions of both"
    whole_s = {tenant: SPEAKERS * len(pcm) / 32_000 for tenant, pcm in said.items()}
    heard = {tenant: heard_s(server, tenant) for tenant in said}
    print(f"{whole_s} s spoken, {heard} s counted, {resumed} sessions resumed")
    assert heard["resting"] == pytest.approx(whole_s["resting"], abs=0.01)
    more = heard["speaking"] - whole_s["speaking"]
    assert -(WRITE_S + 1) <= more / resumed["speaking"] <= RESUMED_S
