"""S1, S6: every route and socket, from the application itself: without a key, with a key that may not, and
with the key of another tenant."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

from loadtest.speech import wav
from serve_app.config import Config
from serve_app.identity.principal import ALL, Scope
from serve_app.identity.routes import ADMIN, ROUTES, SOCKETS, TCP, Access, access_to
from serve_app.jobs.database import Database
from serve_app.jobs.tables import deliveries
from tests.api.sockets.test_conversation_socket import audio
from tests.fakes import served
from tests.identity.keys import bearer, keyed
from tests.identity.walk import application, routes_of
from tests.identity.wires import Refused, SocketIo, tcp
from tests.ports import free_port

FOUND = sorted((it.method, it.path) for it in routes_of(application()))
OPEN = [it for it in FOUND if ROUTES[it[1]].public]
CLOSED = [it for it in FOUND if not ROUTES[it[1]].public]
KEYED = [it for it in CLOSED if not ROUTES[it[1]].in_band]
HANDSHAKES = [path for path, access in SOCKETS.items() if not access.in_band]

NOT_OF_A_TENANT = {"/v1/tenants/{id}/data", "/v1/keys/{id}"}
"""For admins only: a tenant's name, and a key of any tenant."""

ENDLESS = {"/v1/jobs/events"}
"""tests/jobs/test_feed.py shows whose jobs are in it."""

BODIES: dict[str, Any] = {
    "/v1/realtime/client_secrets": {"session": {"type": "transcription"}},
    "/v1/jobs/{id}/result": {"edits": [{"op": "merge", "segment": 0}]},
}
"""Where what is allowed depends on what is asked for."""


class Server(NamedTuple):
    address: str
    tcp: int
    recording: bytes
    ids: tuple[str, ...] = ()
    """Of a job, a live recording, an upload and a webhook of the tenant acme."""

    def client(self, *tenant: str) -> httpx.Client:
        headers = bearer(tenant[0]) if tenant else {}
        return httpx.Client(base_url=f"http://{self.address}", headers=headers, timeout=30)


def only(scope: Scope) -> str:
    return f"only-{scope}"


def all_but(access: Access) -> str:
    return "all-but-" + "-".join(sorted(access.scopes))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, talk: bytes) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("routes"), free_port()
    scopes = {only(scope): frozenset({scope}) for scope in Scope}
    scopes |= {all_but(it): ALL - it.scopes for it in ROUTES.values() if it.scopes}
    args: dict[str, Any] = {
        "profile": "sim",
        "storage": {"directory": str(folder)},
        "tcp": {"port": port},
    }
    auth = keyed(folder, "acme", "bolt", nothing=(), user=ALL - ADMIN.scopes, **scopes)
    config = Config.model_validate({**args, "auth": auth})
    with served(config) as address:
        here = Server(address, port, wav(talk))
        yield here._replace(ids=tuple(_ids(here, config)))


def _ids(server: Server, config: Config) -> Iterator[str]:
    with server.client("acme") as acme:
        yield submitted(acme, server)
        yield acme.post("/api/transcribe/start").json()["id"]
        yield begun(acme)
    asyncio.run(_dead_webhook(config.storage.database_url))
    yield "wh-of-acme"


def submitted(client: httpx.Client, server: Server) -> str:
    """A job's id."""
    answer = client.post("/v1/jobs", files={"file": ("a.wav", server.recording)})
    id_: str = answer.json()["id"]
    return id_


def begun(client: httpx.Client) -> str:
    """An upload's id."""
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    location: str = client.post("/v1/uploads", headers=headers).headers["location"]
    return location.rpartition("/")[2]


async def _dead_webhook(url: str) -> None:
    database = Database(url)
    row: dict[str, Any] = {
        "id": "wh-of-acme",
        "job_id": "j",
        "tenant": "acme",
        "url": "https://acme.example",
    }
    row |= {"body": "{}", "state": "dead", "attempts": 1, "due": 0.0, "created": 0.0}
    async with database.write() as connection:
        await connection.execute(deliveries.insert().values(**row))
    await database.close()


def asked(client: httpx.Client, method: str, path: str, id_: str = "x", **more: Any) -> Any:
    """The answer, without the body of a stream that goes on."""
    url = path.replace("{model:path}", "sim").replace("{form}", "txt").replace("{id}", id_)
    more.setdefault("json", BODIES.get(path))
    with client.stream(method, url, **more) as answer:
        if answer.is_error:
            answer.read()
        return answer


def code(answer: Any) -> str:
    """Of an error in OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["param"] is None
    return f"{answer.status_code} {error['type']} {error['code']}"


def ids(found: tuple[str, str]) -> str:
    return " ".join(found)


NO_KEY = "401 authentication_error missing_api_key"
WRONG_KEY = "401 authentication_error invalid_api_key"
WRONG_SCOPE = "403 permission_error missing_scope"


@pytest.mark.parametrize("found", OPEN, ids=ids)
def test_these_are_for_everybody(server: Server, found: tuple[str, str]) -> None:
    with server.client() as client:
        assert asked(client, *found).status_code not in (401, 403)


@pytest.mark.parametrize("found", KEYED, ids=ids)
def test_all_others_need_a_key(server: Server, found: tuple[str, str]) -> None:
    with server.client() as client:
        answer = asked(client, *found)
        assert code(answer) == NO_KEY
        assert answer.headers["www-authenticate"] == "Bearer"
        assert code(asked(client, *found, headers=bearer("nobody"))) == WRONG_KEY
        assert code(asked(client, *found, params={"api_key": "x"})) == WRONG_KEY


@pytest.mark.parametrize("found", [it for it in KEYED if ROUTES[it[1]].scopes], ids=ids)
def test_a_key_needs_one_of_the_scopes(server: Server, found: tuple[str, str]) -> None:
    access = ROUTES[found[1]]
    for tenant in ("nothing", all_but(access)):
        with server.client(tenant) as client:
            assert code(asked(client, *found)) == WRONG_SCOPE
    for scope in access.scopes:
        with server.client(only(scope)) as client:
            assert asked(client, *found).status_code not in (401, 403)


@pytest.mark.parametrize("found", [it for it in KEYED if not ROUTES[it[1]].scopes], ids=ids)
def test_a_key_without_scopes_opens_the_rest(server: Server, found: tuple[str, str]) -> None:
    with server.client("nothing") as client:
        assert asked(client, *found).status_code not in (401, 403)


def test_a_path_that_does_not_exist_needs_a_key_too(server: Server) -> None:
    with server.client() as client, server.client("acme") as acme:
        for path in ("/v1/nothing", "/socketx", "/v1/jobs/a/b/c"):
            assert code(client.get(path)) == NO_KEY
            assert acme.get(path).status_code == 404


def test_no_other_method_gets_round_the_gate(server: Server) -> None:
    with server.client() as client:
        for path in {path for _, path in KEYED}:
            for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"):
                assert asked(client, method, path).status_code == 401, (method, path)


def test_the_openapi_document_says_what_each_route_needs(server: Server) -> None:
    with server.client() as client:
        document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"}
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {scope for way in operation.get("security", ()) for scope in way["key"]}
            assert named == access_to(path).scopes
            assert ("security" in operation) != access_to(path).public


# Sockets.


def handshake(address: str, path: str, tenant: str = "") -> ClientConnection:
    headers = bearer(tenant) if tenant else {}
    return websocket(f"ws://{address}{path}", additional_headers=headers)


def refused(address: str, path: str, tenant: str = "") -> str:
    with pytest.raises(InvalidStatus) as refusal:
        handshake(address, path, tenant)
    response = refusal.value.response
    return code(httpx.Response(response.status_code, content=bytes(response.body or b"")))


@pytest.mark.parametrize("path", HANDSHAKES)
def test_a_handshake_needs_a_key_with_one_of_the_scopes(server: Server, path: str) -> None:
    access = SOCKETS[path]
    assert refused(server.address, path) == NO_KEY
    assert refused(server.address, path, "nobody") == WRONG_KEY
    assert refused(server.address, path, all_but(access)) == WRONG_SCOPE
    for scope in access.scopes:
        asks = "?intent=transcription" if scope is Scope.TRANSCRIBE and "realtime" in path else ""
        with handshake(server.address, path + asks, only(scope)) as socket:
            assert json.loads(socket.recv(10))["type"]


IN_BAND: dict[str, Any] = {"/socket": SocketIo, TCP: tcp}


def test_nothing_else_takes_a_key_in_a_message() -> None:
    assert set(IN_BAND) == set(SOCKETS) - set(HANDSHAKES)


@pytest.mark.parametrize("path", IN_BAND)
def test_where_the_key_comes_in_a_message_it_is_needed_too(server: Server, path: str) -> None:
    access = SOCKETS[path]
    where = server.tcp if path == TCP else server.address
    for tenant, said in (
        ("", "missing_api_key"),
        ("nobody", "invalid_api_key"),
        (all_but(access), "missing_scope"),
    ):
        with pytest.raises(Refused, match=said):
            IN_BAND[path](where, bearer(tenant)["Authorization"][7:] if tenant else None)
    for scope in access.scopes:
        IN_BAND[path](where, bearer(only(scope))["Authorization"][7:]).close()


def test_s6_a_key_makes_only_client_secrets_of_its_own_scopes(server: Server) -> None:
    path = "/v1/realtime/client_secrets"
    with server.client(only(Scope.TRANSCRIBE)) as client:
        assert code(client.post(path, json={})) == WRONG_SCOPE
        made = client.post(path, json=BODIES[path])
        assert made.status_code == 200
        shown = {"Authorization": f"Bearer {made.json()['value']}"}
        assert code(client.post(path, json=BODIES[path], headers=shown)) == WRONG_KEY
        lasting = {"expires_after": {"anchor": "created_at", "seconds": 7201}}
        assert client.post(path, json=lasting).status_code == 400
    for socket, status in (("/v1/transcribe/stream", 101), ("/v1/realtime", 101), ("/ws", 403)):
        try:
            with websocket(f"ws://{server.address}{socket}", additional_headers=shown) as opened:
                assert opened.response and opened.response.status_code == status
        except InvalidStatus as refusal:
            assert refusal.response.status_code == status


# Two tenants.


WITH_ID = [it for it in FOUND if "{id}" in it[1] and it[1] not in NOT_OF_A_TENANT]


@pytest.mark.parametrize("found", WITH_ID, ids=ids)
def test_s1_another_tenants_id_does_not_exist(server: Server, found: tuple[str, str]) -> None:
    with server.client("bolt") as bolt:
        for id_ in server.ids:
            answer, none = asked(bolt, *found, id_), asked(bolt, *found, "f" * len(id_))
            assert answer.status_code == none.status_code == 404
            assert answer.text.replace(id_, "") == none.text.replace("f" * len(id_), "")


@pytest.mark.parametrize("found", WITH_ID, ids=ids)
def test_s1_its_owner_gets_it(server: Server, found: tuple[str, str]) -> None:
    """So that the test above shows something."""
    with server.client("acme") as acme:
        new = begun(acme) if "/uploads/" in found[1] else submitted(acme, server)
        mine = [new] if found[0] == "DELETE" else server.ids
        statuses = [asked(acme, *found, id_).status_code for id_ in mine]
    assert any(status != 404 for status in statuses)


LISTS = [
    path for method, path in KEYED if method == "GET" and "{" not in path and path not in ENDLESS
]


@pytest.mark.parametrize("path", LISTS)
def test_s1_no_list_shows_another_tenant(server: Server, path: str) -> None:
    with server.client("user") as user:
        whole, after, none = (
            user.get(path, params=asks).text
            for asks in ({}, {"after": server.ids[0]}, {"after": "f" * len(server.ids[0])})
        )
    for text in (whole, after.replace(server.ids[0], "")):
        assert "acme" not in text and not any(id_ in text for id_ in server.ids)
    assert path == "/v1/usage" or after.replace(server.ids[0], "f" * len(server.ids[0])) == none


@pytest.mark.parametrize(
    ("path", "messages", "last"),
    [
        ("/v1/transcribe/stream", [{"type": "start"}], "session"),
        ("/ws", [{"type": "start", "session_id": "s"}, "speech"], "conversation_complete"),
    ],
)
def test_s1_another_tenants_session_cannot_be_resumed(
    server: Server, path: str, messages: list[Any], last: str, speech: bytes
) -> None:
    told: dict[str, Any] = {}
    with handshake(server.address, path, "acme") as socket:
        socket.recv(10)
        for message in messages:
            socket.send(json.dumps(audio(speech) if message == "speech" else message))
        while told.get("type") != last:
            told = json.loads(socket.recv(10))
    token, told = told["resume"], {}
    for tenant in ("bolt", "acme"):
        with handshake(server.address, path, tenant) as socket:
            socket.recv(10)
            socket.send(json.dumps({"type": "start", "resume": token}))
            answer = json.loads(socket.recv(10))
            told[tenant] = answer.get("code", answer["type"])
    assert told["bolt"] == "resume_refused" != told["acme"]


def test_s1_another_tenants_live_recording_is_not_there(server: Server, tmp_path: Path) -> None:
    live = f"/v1/transcribe/stream?transcription={server.ids[1]}"
    with handshake(server.address, live, "bolt") as bolt:
        assert [json.loads(bolt.recv(10)) for _ in range(2)][1]["code"] == "job_not_found"
