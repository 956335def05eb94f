"""A key is revoked, or expires: new requests are refused within 5 s, and what is open with it is closed."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as websocket
from websockets.typing import Subprotocol

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.identity.api_key import Peppers
from serve_app.identity.api_keys import ApiKeys, NewKey, Order
from serve_app.identity.principal import ALL
from serve_app.jobs.database import Database
from tests.fakes import served
from tests.identity.wires import Refused, SocketIo, tcp
from tests.ports import free_port
from tests.waiting import wait_for

PEPPER = base64.b64encode(b"p" * 32).decode()
WITHIN_S = 5.0
REVOKED = "invalid_api_key"


class Server:
    """With keys in its database."""

    def __init__(self, address: str, tcp_port: int, url: str) -> None:
        self.address, self.tcp, self._url = address, tcp_port, url

    def create(self, lifetime_s: float | None = None) -> NewKey:
        """One that is known: a handshake does not wait for a new one, as requests do."""
        peppers, order = Peppers.parse(PEPPER), Order("acme", ALL, lifetime_s=lifetime_s)
        key: NewKey = self._do(lambda keys: keys.create(order, peppers))
        assert self.get(key).status_code == 200
        return key

    def revoke(self, key: NewKey) -> None:
        self._do(lambda keys: keys.revoke(key.row.id))

    def get(self, key: NewKey, path: str = "/v1/jobs") -> httpx.Response:
        return httpx.get(f"http://{self.address}{path}", headers=shown(key), timeout=10)

    def _do(self, do: Callable[[ApiKeys], Any]) -> Any:
        async def ask() -> Any:
            database = Database(self._url)
            try:
                return await do(ApiKeys(database))
            finally:
                await database.close()

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    args: dict[str, Any] = {
        "profile": "sim",
        "storage": {"directory": str(tmp_path_factory.mktemp("revoked"))},
        "auth": "keys",
        "tcp": {"port": free_port()},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_KEY_PEPPER", PEPPER)
        config = Config.model_validate(args)
        with served(config) as address:
            yield Server(address, config.tcp.port, config.storage.database_url)


def shown(key: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.shown}"}


def test_new_requests_are_refused(server: Server) -> None:
    key, other = server.create(), server.create()
    assert server.get(key).status_code == server.get(other).status_code == 200
    server.revoke(key)
    began = time.monotonic()
    while server.get(key).status_code == 200:
        assert time.monotonic() < began + WITHIN_S
        time.sleep(0.05)
    assert server.get(key).json()["error"]["code"] == REVOKED
    assert server.get(other).status_code == 200


WEBSOCKETS = ("/v1/transcribe/stream", "/v1/realtime", "/ws")


def code_of(message: Any) -> str | None:
    """Of an error, in the shape of each dialect."""
    told = json.loads(message)
    code: str | None = (told.get("error") or told).get("code")
    return code


def until_closed(socket: Any) -> tuple[int, list[str | None]]:
    """The close code; the codes of the errors before it, and its own reason."""
    codes = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            codes.append(code_of(socket.recv(WITHIN_S)))
    assert closed.value.rcvd
    return closed.value.rcvd.code, [*codes, closed.value.rcvd.reason]


@pytest.mark.parametrize("path", WEBSOCKETS)
@pytest.mark.parametrize("as_subprotocol", [False, True])
def test_websockets_close_with_1008(server: Server, path: str, as_subprotocol: bool) -> None:
    key, other = server.create(), server.create()
    secret = Subprotocol(f"openai-insecure-api-key.{key.shown}")
    with (
        websocket(
            f"ws://{server.address}{path}",
            additional_headers={} if as_subprotocol else shown(key),
            subprotocols=[Subprotocol("voxray"), secret] if as_subprotocol else None,
        ) as mine,
        websocket(f"ws://{server.address}{path}", additional_headers=shown(other)) as theirs,
    ):
        theirs.recv(5)
        server.revoke(key)
        code, errors = until_closed(mine)
        assert code == 1008 and REVOKED in errors
        with pytest.raises(TimeoutError):
            while True:
                theirs.recv(0.2)


def test_what_a_client_secret_of_the_key_has_opened_closes_too(server: Server) -> None:
    key = server.create()
    url = f"http://{server.address}/v1/realtime/client_secrets"
    secret = httpx.post(url, json={}, headers=shown(key)).json()["value"]
    for path in ("/v1/realtime", "/ws"):
        protocols = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{secret}")]
        socket = websocket(f"ws://{server.address}{path}", subprotocols=protocols)
        if path == "/v1/realtime":
            first = socket
    with first, socket:
        server.revoke(key)
        assert until_closed(first)[0] == until_closed(socket)[0] == 1008
    with pytest.raises(Exception, match="401"):
        websocket(f"ws://{server.address}/ws", subprotocols=protocols)


def test_socket_io_is_disconnected(server: Server) -> None:
    key = server.create()
    client = SocketIo(server.address, str(key.shown))
    server.revoke(key)
    wait_for(lambda: not client.connected, WITHIN_S)
    assert [fields["code"] for name, fields in client.told if name == "error"] == [REVOKED]


def test_the_tcp_connection_ends(server: Server) -> None:
    key = server.create()
    wire = tcp(server.tcp, str(key.shown))
    wire.send(type="ping")
    assert (wire.receive() or {})["type"] == "pong"
    server.revoke(key)
    assert code_of(json.dumps(wire.receive())) == REVOKED
    assert wire.receive() is None
    wire.close()


def test_a_stream_of_events_ends(server: Server, talk: bytes) -> None:
    key = server.create()
    files = {"file": ("a.wav", wav(talk))}
    with httpx.Client(base_url=f"http://{server.address}", headers=shown(key)) as client:
        id_ = client.post("/v1/jobs", files=files).json()["id"]
        with client.stream("GET", f"/v1/jobs/{id_}/events", timeout=WITHIN_S) as events:
            server.revoke(key)
            assert REVOKED in events.read().decode()


def test_a_key_that_expires_ends_as_one_that_is_revoked(server: Server) -> None:
    key = server.create(lifetime_s=4)
    secret = str(key.shown)
    assert key.row.expires
    with contextlib.ExitStack() as open_:
        sockets = [
            open_.enter_context(
                websocket(f"ws://{server.address}{path}", additional_headers=shown(key))
            )
            for path in WEBSOCKETS
        ]
        client, wire = SocketIo(server.address, secret), tcp(server.tcp, secret)
        for socket in sockets:
            code, errors = until_closed(socket)
            assert code == 1008 and REVOKED in errors
    assert code_of(json.dumps(wire.receive())) == REVOKED
    assert wire.receive() is None
    wire.close()
    wait_for(lambda: not client.connected, WITHIN_S)
    assert [fields["code"] for name, fields in client.told if name == "error"] == [REVOKED]
    assert 0 <= time.time() - key.row.expires < WITHIN_S
    for path in WEBSOCKETS:
        with pytest.raises(InvalidStatus) as refused:
            websocket(f"ws://{server.address}{path}", additional_headers=shown(key))
        assert refused.value.response.status_code == 401
        assert REVOKED.encode() in refused.value.response.body
    with pytest.raises(Refused, match=REVOKED):
        SocketIo(server.address, secret)
    with pytest.raises(Refused, match=REVOKED):
        tcp(server.tcp, secret)
