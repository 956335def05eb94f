"""S4: limits at every door of a real server: requests, live sessions, conversations."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx
import pytest
import websockets
from websockets.sync.client import ClientConnection, connect

from serve_app.config import Config
from tests.api.sockets.test_hostile import upgraded
from tests.fakes import served
from tests.waiting import wait_for

LIVE, TALK, REALTIME = "/v1/transcribe/stream", "/ws", "/v1/realtime"


def limits(**limits: Any) -> Config:
    return Config(profile="sim", tenants={"default": {"limits": limits}})


def refusal(address: str, path: str) -> Any:
    """The answer to a handshake that is refused."""
    with (
        pytest.raises(websockets.InvalidStatus) as refused,
        connect(f"ws://{address}{path}"),
    ):
        pass
    return refused.value.response


def code(response: Any) -> str:
    return str(json.loads(response.body)["error"]["code"])


def opens(address: str, path: str) -> bool:
    try:
        with connect(f"ws://{address}{path}"):
            pass
    except websockets.InvalidStatus:
        return False
    return True


def test_requests_are_counted_and_answers_say_what_is_left() -> None:
    with served(limits(requests_per_minute=3)) as address:
        answers = [httpx.get(f"http://{address}/v1/models") for _ in range(5)]
        assert [it.status_code for it in answers] == [200, 200, 200, 429, 429]
        left = [it.headers["x-ratelimit-remaining-requests"] for it in answers]
        assert left == ["2", "1", "0", "0", "0"]
        refused = answers[-1]
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert 0 < int(refused.headers["retry-after"]) <= 120
        assert refused.headers["x-should-retry"] == "true"
        assert httpx.get(f"http://{address}/v1/health").status_code == 200
        assert code(refusal(address, LIVE)) == "rate_limit_exceeded"


def test_a_handshake_is_a_request_and_says_what_is_left() -> None:
    with served(limits(requests_per_minute=3)) as address:
        for path, left in ((LIVE, "2"), (TALK, "1"), (REALTIME, "0")):
            with connect(f"ws://{address}{path}") as socket:
                assert socket.response
                assert socket.response.headers["x-ratelimit-remaining-requests"] == left
        refused = refusal(address, LIVE)
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("path", [LIVE, TALK, REALTIME])
def test_sessions_are_limited_and_given_back(path: str) -> None:
    with served(limits(sessions=2)) as address:
        for _ in range(3):
            with ExitStack() as held:
                for _ in range(2):
                    held.enter_context(connect(f"ws://{address}{path}"))
                refused = refusal(address, path)
                assert (refused.status_code, code(refused)) == (429, "rate_limit_exceeded")
                assert refused.headers["retry-after"]
            wait_for(lambda: opens(address, path))


def test_conversations_are_limited_beside_sessions() -> None:
    with served(limits(conversations=1)) as address, connect(f"ws://{address}{TALK}"):
        assert code(refusal(address, REALTIME)) == "rate_limit_exceeded"
        assert opens(address, LIVE)


def test_no_place_is_lost_however_a_session_ends() -> None:
    """After a normal end, a client that vanishes, a handshake that is broken off, one that is
    refused, and messages that end the session."""
    with served(limits(sessions=1)) as address:
        for end in (stopped, vanished, broken_off, refused_otherwise, wrong):
            end(address)
            wait_for(lambda: opens(address, LIVE), 30)


def stopped(address: str) -> None:
    with connect(f"ws://{address}{LIVE}") as socket:
        socket.send('{"type":"stop"}')
        for _ in socket:
            pass


def vanished(address: str) -> None:
    raw = upgraded(address, LIVE)
    raw.recv(1000)
    raw.close()


def broken_off(address: str) -> None:
    upgraded(address, LIVE).close()


def refused_otherwise(address: str) -> None:
    """After the limits have been asked, or before."""
    assert not opens(address, f"{LIVE}?nonsense=1")


def wrong(address: str) -> None:
    with connect(f"ws://{address}{LIVE}") as socket:
        socket.send(b"\0" * (3 << 20))
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                socket.recv()


def test_a_session_that_runs_out_gets_its_last_words_and_an_error(speech: bytes) -> None:
    with served(limits(audio_seconds_per_day=3)) as address:
        with connect(f"ws://{address}{LIVE}") as socket:
            for at in range(0, len(speech), 3200):
                socket.send(speech[at : at + 3200])
            events = list(read(socket))
        errors = [it["code"] for it in events if it["type"] == "error"]
        assert errors == ["quota_exceeded"]
        assert any(it["type"] == "final" for it in events), "the audio before is not lost"
        assert socket.close_code == 1008
        refused = refusal(address, LIVE)
        assert code(refused) == "quota_exceeded"
        assert refused.headers["x-should-retry"] == "false"
        assert int(refused.headers["retry-after"]) > 0


def read(socket: ClientConnection) -> Iterator[dict[str, Any]]:
    try:
        for frame in socket:
            yield json.loads(frame)
    except websockets.ConnectionClosedError:
        return
