"""S8: every route and socket refuses pages of foreign origins, and foreign names of the server."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
import socketio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket
from websockets.typing import Subprotocol

from serve_app.api import create_app
from serve_app.api.gate import PROBES
from serve_app.config import Config
from tests.fakes import models, served

FRIEND = "https://app.example"
FOREIGN: list[dict[str, str]] = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"host": "evil.example"},
    {"host": "evil.example", "origin": "http://evil.example"},
]
SOCKETS = ("/v1/transcribe/stream", "/v1/realtime", "/ws", "/socket/?EIO=4&transport=websocket")


def routes() -> list[tuple[str, str]]:
    """From the application itself, so that a new route cannot be forgotten."""
    paths = create_app(models(), Config(profile="sim")).openapi()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert ("POST", "/v1/jobs") in found and ("POST", "/config/update") in found
    unlisted = [("GET", it) for it in ("/docs", "/openapi.json", "/web/voxray.js", "/ws")]
    return [*found, *unlisted, ("POST", "/socket/?EIO=4&transport=polling")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    args: dict[str, Any] = {
        "profile": "sim",
        "storage": {"directory": str(tmp_path_factory.mktemp("pages"))},
        "browser": {"origins": [FRIEND], "hosts": ["voice.example"]},
    }
    with served(Config.model_validate(args)) as address:
        yield address


def code_of(answer: httpx.Response) -> str:
    assert answer.status_code == 403, answer.text
    code: str = answer.json()["error"]["code"]
    return code


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_refuses_them(address: str, method: str, path: str) -> None:
    with httpx.Client(base_url=f"http://{address}") as client:
        for headers in FOREIGN:
            answer = client.request(method, path, headers=headers)
            if path in PROBES:
                assert answer.status_code in (200, 503)
                continue
            expected = "host_not_allowed" if "host" in headers else "origin_not_allowed"
            assert code_of(answer) == expected, headers
            answer = client.request(method, path, headers={**headers, "authorization": "Bearer x"})
            assert answer.status_code in (401, 403), "a key that is none changes nothing"


@pytest.mark.parametrize("path", SOCKETS)
def test_every_socket_refuses_them(address: str, path: str) -> None:
    for headers in FOREIGN:
        for protocols in (None, ["realtime", "openai-insecure-api-key.none"]):
            with pytest.raises(InvalidStatus) as refused:
                opened(address, path, headers, protocols)
            answer = refused.value.response
            assert answer.status_code in (401, 403)
            if answer.status_code == 403:
                code = json.loads(answer.body)["error"]["code"]
                assert code == ("host_not_allowed" if "host" in headers else "origin_not_allowed")


def opened(
    address: str, path: str, headers: dict[str, str], protocols: list[str] | None = None
) -> None:
    sent = dict(headers)
    host, port = address.split(":")
    uri = f"ws://{sent.pop('host', host)}:{port}{path}"
    known: Any = [Subprotocol(it) for it in protocols or ()] or None
    sock = socket.create_connection((host, int(port)))
    with websocket(uri, sock=sock, additional_headers=sent, subprotocols=known):
        return


@pytest.mark.parametrize("path", SOCKETS)
def test_every_socket_takes_ours(address: str, path: str) -> None:
    for headers in ({"origin": f"http://{address}"}, {"origin": FRIEND}, {"host": "voice.example"}):
        opened(address, path, headers)


def test_our_pages_use_every_kind_of_route(address: str) -> None:
    ours: tuple[dict[str, str], ...] = (
        {"origin": f"http://{address}"},
        {"origin": FRIEND},
        {"host": "voice.example"},
        {},
    )
    for headers in ours:
        with httpx.Client(base_url=f"http://{address}", headers=headers) as client:
            assert client.get("/v1/jobs").status_code == 200
            assert client.post("/config/update", json={}).status_code == 200
            assert client.get("/docs").status_code == 200


def test_a_foreign_page_with_a_client_secret_talks(address: str) -> None:
    """Its own server asked for the secret."""
    secret = httpx.post(f"http://{address}/v1/realtime/client_secrets", json={}).json()["value"]
    foreign = {"origin": "http://evil.example"}
    opened(address, "/v1/realtime", foreign, ["realtime", f"openai-insecure-api-key.{secret}"])
    forged = f"openai-insecure-api-key.{secret[:-2]}"
    with pytest.raises(InvalidStatus) as refused:
        opened(address, "/v1/realtime", foreign, ["realtime", forged])
    assert refused.value.response.status_code == 401


def test_socket_io_agrees(address: str) -> None:
    url = f"http://{address}"
    with pytest.raises(socketio.exceptions.ConnectionError):
        foreign = {"Origin": "http://evil.example"}
        socketio.SimpleClient().connect(url, headers=foreign, socketio_path="socket")

    async def connect() -> None:
        """By WebSocket: a client that polls leaves only with the next ping."""
        async with socketio.AsyncSimpleClient() as client:
            await client.connect(
                url, {"Origin": FRIEND}, transports=["websocket"], socketio_path="socket"
            )
            assert client.connected

    asyncio.run(connect())


def test_refusals_are_counted_and_do_not_reach_the_route(address: str) -> None:
    form = {"file": ("a.wav", b"RIFF")}
    httpx.post(f"http://{address}/v1/jobs", files=form, headers={"origin": "http://evil.example"})
    assert httpx.get(f"http://{address}/v1/jobs").json()["data"] == []
    assert httpx.get(f"http://{address}/v1/metrics").json()["errors"]["origin_not_allowed"] > 0
