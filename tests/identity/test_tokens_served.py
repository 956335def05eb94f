"""What is open with a token ends with it: sockets, streams of events, client secrets."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from deployments.chat.sim import SimChat
from loadtest.speech import wav
from serve_app.config import Config
from serve_app.config.auth import AuthConfig
from serve_app.identity.principal import Principal, Scope
from serve_app.security import client_secret
from serve_app.security.signing import SigningKeys
from tests.api.sockets.test_conversation_socket import audio
from tests.api.sockets.test_live_socket import chunks
from tests.fakes import models, served
from tests.identity.provider import in_file, token
from tests.identity.wires import Refused, SocketIo, tcp
from tests.ports import free_port
from tests.waiting import wait_for

REVOKED = "invalid_api_key"
SCOPES = "voxray:transcribe voxray:realtime voxray:jobs"
LASTS_S = 3
TCP_PORT = free_port()
SIGNING = SigningKeys([bytes(32)])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("tokens")
    args = {"profile": "sim", "storage": {"directory": str(folder)}, "tcp": {"port": TCP_PORT}}
    config = Config.model_validate(args)
    auth = AuthConfig(jwt=in_file(folder, leeway_s=0))
    there = models(keys=SIGNING, chat_engine=SimChat(60_000, 1, 8))
    with served(config.model_copy(update={"auth": auth}), there) as address:
        yield address


def bearer(**changed: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**{'scope': SCOPES, **changed})}"}


def ask(server: str, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
    return httpx.request(method, f"http://{server}{path}", headers=headers, timeout=30, **more)


def code(answer: Any) -> str:
    return str(answer.json()["error"]["code"])


def soon() -> int:
    return int(time.time()) + LASTS_S


def closed(socket: ClientConnection) -> tuple[int, str]:
    """How the server closes it, and all that it says."""
    said = ""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            said += str(socket.recv(timeout=30))
    assert end.value.rcvd
    return end.value.rcvd.code, said + end.value.rcvd.reason


def test_a_token_opens_what_its_scopes_allow(server: str) -> None:
    assert ask(server, "GET", "/v1/jobs", bearer()).json()["data"] == []
    for refused, scope in ((403, "openid"), (403, "voxray:speak"), (403, None)):
        answer = ask(server, "GET", "/v1/jobs", bearer(scope=scope))
        assert (answer.status_code, code(answer)) == (refused, "missing_scope")
    assert ask(server, "GET", "/v1/models", bearer(scope=None)).status_code == 200


def test_a_refused_token_is_401_everywhere(server: str) -> None:
    for headers in (bearer(exp=int(time.time()) - 1), bearer(aud="another"), bearer(tenant="../x")):
        answer = ask(server, "GET", "/v1/jobs", headers)
        assert (answer.status_code, code(answer)) == (401, "invalid_api_key")
        assert answer.json()["error"]["type"] == "authentication_error"
        for path in ("/v1/transcribe/stream", "/v1/realtime", "/ws"):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://{server}{path}", additional_headers=headers)
            assert refused.value.response.status_code == 401
            assert REVOKED.encode() in refused.value.response.body


@pytest.mark.parametrize(
    ("path", "protocols"),
    [
        ("/v1/transcribe/stream", False),
        ("/v1/realtime", True),
        ("/ws", False),
    ],
)
def test_a_socket_closes_when_its_token_expires(server: str, path: str, protocols: bool) -> None:
    end = soon()
    shown = bearer(exp=end)["Authorization"].removeprefix("Bearer ")
    given: dict[str, Any] = {"additional_headers": {"x-api-key": shown}}
    if protocols:
        given = {"subprotocols": ["realtime", f"openai-insecure-api-key.{shown}"]}
    with connect(f"ws://{server}{path}", **given) as socket:
        status, said = closed(socket)
    assert status == 1008
    assert "invalid_api_key" in said
    assert end - 0.1 <= time.time() < end + 3


def test_socket_io_is_disconnected_when_its_token_expires(server: str) -> None:
    end = soon()
    client = SocketIo(server, token(scope=SCOPES, exp=end))
    wait_for(lambda: not client.connected, LASTS_S + 3)
    assert time.time() >= end - 0.1
    assert [fields["code"] for name, fields in client.told if name == "error"] == [REVOKED]
    with pytest.raises(Refused, match=REVOKED):
        SocketIo(server, token(scope=SCOPES, exp=end))


def test_the_tcp_connection_ends_when_its_token_expires(server: str) -> None:
    end = soon()
    wire = tcp(TCP_PORT, token(scope=SCOPES, exp=end))
    wire.send(type="ping")
    assert (wire.receive() or {})["type"] == "pong"
    assert REVOKED in json.dumps(wire.receive())
    assert wire.receive() is None
    wire.close()
    assert end - 0.1 <= time.time() < end + 3
    with pytest.raises(Refused, match=REVOKED):
        tcp(TCP_PORT, token(scope=SCOPES, exp=end))


def test_a_turn_over_tcp_ends_when_its_token_expires(server: str, speech: bytes) -> None:
    """Before the reply, which takes a minute here."""
    end = soon()
    wire = tcp(TCP_PORT, token(scope=SCOPES, exp=end))
    wire.send(**audio(speech))
    assert (wire.receive() or {})["code"] == REVOKED
    assert wire.receive() is None
    wire.close()
    assert end - 0.1 <= time.time() < end + 3


def test_who_speaks_over_socket_io_is_disconnected_when_the_token_expires(
    server: str, talk: bytes
) -> None:
    end = soon()
    client = SocketIo(server, token(scope=SCOPES, exp=end))
    for chunk in chunks(talk):
        client.send("audio:chunk", chunk)
        time.sleep(0.1)
        if not client.connected:
            break
    assert end - 0.1 <= time.time() < end + 3
    assert client.told[0][0].startswith("transcription:")
    assert [fields["code"] for name, fields in client.told if name == "error"] == [REVOKED]


def test_a_client_secret_opens_nothing_once_it_has_expired(server: str) -> None:
    """What it has opened goes on, as long as the key or token that made it."""
    owner, end = Principal("acme", "jwt:ann", expires=time.time() + 600), soon()
    secret = client_secret.mint(SIGNING, {}, end, "n", owner, Scope.REALTIME)
    headers = {"Authorization": f"Bearer {secret}"}
    with connect(f"ws://{server}/v1/realtime", additional_headers=headers) as socket:
        wait_for(lambda: time.time() > end + 1)
        for path in ("/v1/realtime", "/ws"):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://{server}{path}", additional_headers=headers)
            assert refused.value.response.status_code == 401
            assert REVOKED.encode() in refused.value.response.body
        socket.send(json.dumps({"type": "input_audio_buffer.clear"}))
        while "input_audio_buffer.cleared" not in str(socket.recv(timeout=10)):
            continue


def test_a_client_secret_and_what_it_opens_end_with_the_token_that_made_it(server: str) -> None:
    end = soon()
    asked = {"session": {"type": "realtime"}, "expires_after": {"seconds": 600}}
    made = ask(server, "POST", "/v1/realtime/client_secrets", bearer(exp=end), json=asked).json()
    assert made["expires_at"] == end
    shown = {"Authorization": f"Bearer {made['value']}"}
    with connect(f"ws://{server}/v1/realtime", additional_headers=shown) as socket:
        assert closed(socket)[0] == 1008
    assert time.time() >= end - 0.1
    with pytest.raises(InvalidStatus):
        connect(f"ws://{server}/v1/realtime", additional_headers=shown)


def test_a_stream_of_events_ends_when_its_token_expires(server: str) -> None:
    file = {"file": ("a.wav", wav(bytes(32_000)))}
    job = ask(server, "POST", "/v1/jobs", bearer(), files=file).json()
    end = soon()
    answer = ask(server, "GET", f"/v1/jobs/{job['id']}/events", bearer(exp=end))
    assert "invalid_api_key" in answer.text[-300:]
    assert end - 0.1 <= time.time() < end + 3


def test_others_go_on(server: str) -> None:
    """A token of the same person that lasts longer, at the same time."""
    headers = bearer()
    with connect(f"ws://{server}/v1/transcribe/stream", additional_headers=headers) as socket:
        test_a_socket_closes_when_its_token_expires(server, "/v1/transcribe/stream", False)
        with pytest.raises(TimeoutError):
            while True:
                socket.recv(timeout=0.5)


def test_many_guesses_open_nothing(server: str) -> None:
    made = token().rsplit(".", 1)[0]
    with (
        httpx.Client(base_url=f"http://{server}", timeout=30) as client,
        ThreadPoolExecutor(8) as at,
    ):

        def guess(number: int) -> int:
            headers = {"Authorization": f"Bearer {made}.{number:0>340}"}
            return client.get("/v1/models", headers=headers).status_code

        assert set(at.map(guess, range(100))) == {401}
