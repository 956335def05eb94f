"""`/v1/sign_in`: a key for a cookie, and what that opens from where."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serve_app.config import Config, StorageConfig
from serve_app.identity.principal import ALL, Principal, Scope
from serve_app.security import sign_in
from serve_app.security.signing import SigningKeys
from tests.fakes import served
from tests.identity.keys import bearer, key_of, keyed, with_keys
from tests.waiting import wait_for

COOKIE = sign_in.COOKIE
SOCKETS = ("/v1/transcribe/stream", "/v1/realtime", "/ws")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    storage = StorageConfig(directory=str(tmp_path))
    return with_keys(Config(profile="sim", storage=storage), "acme", bolt={Scope.JOBS})


@pytest.fixture
def address(config: Config) -> Iterator[str]:
    with served(config) as address:
        yield address


CLIENTS: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def page(address: str, **headers: str) -> httpx.Client:
    """As a page of the server itself."""
    own = {"Origin": f"http://{address}", **headers}
    CLIENTS.append(httpx.Client(base_url=f"http://{address}", headers=own, timeout=30))
    return CLIENTS[-1]


def signed_in(address: str, tenant: str = "acme") -> httpx.Client:
    client = page(address)
    answer = client.post("/v1/sign_in", json={"key": key_of(tenant)})
    assert answer.status_code == 200, answer.text
    return client


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_key_is_exchanged_for_a_cookie_that_is_worth_the_same(address: str) -> None:
    client = page(address)
    assert client.get("/v1/sign_in").json() == {
        "object": "sign_in",
        "needs_key": True,
        "signed_in": False,
        "tenant": None,
        "scopes": [],
        "expires": None,
    }
    answer = client.post("/v1/sign_in", json={"key": key_of("bolt")})
    who = answer.json()
    assert (who["signed_in"], who["tenant"], who["scopes"]) == (True, "bolt", ["jobs"])
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="):
        assert part in cookie
    assert key_of("bolt") not in cookie and "Secure" not in cookie
    assert client.get("/v1/sign_in").json() == who
    assert client.get("/v1/jobs").status_code == 200
    assert code(client.get("/v1/metrics")) == (403, "missing_scope")
    assert client.delete("/v1/sign_in").status_code == 204
    assert not client.cookies and code(client.get("/v1/jobs")) == (401, "missing_api_key")


def test_over_tls_the_cookie_is_secure(address: str) -> None:
    with page(address, Origin=f"https://{address}") as client:
        client.headers["X-Forwarded-Proto"] = "https"
        answer = client.post("/v1/sign_in", json={"key": key_of("acme")})
        assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("body", [{}, {"key": ""}, {"key": 5}, {"key": "a", "more": 1}])
def test_what_is_no_sign_in_is_refused(address: str, body: object) -> None:
    assert page(address).post("/v1/sign_in", json=body).status_code in (400, 422)


def test_a_wrong_key_gets_the_same_answer_as_everywhere(address: str) -> None:
    answer = page(address).post("/v1/sign_in", json={"key": "no-such-key-0123456789"})
    elsewhere = page(address, Authorization="Bearer no-such-key-0123456789").get("/v1/jobs")
    assert code(answer) == code(elsewhere) == (401, "invalid_api_key")
    assert "set-cookie" not in answer.headers


def test_a_key_in_a_header_wins_over_the_cookie(address: str) -> None:
    client = signed_in(address, "bolt")
    who = client.get("/v1/sign_in", headers=bearer("acme")).json()
    assert who["tenant"] == "acme"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1:1",
        "https://127.0.0.1:PORT",
        "null",
        "http://localhost:PORT",
    ],
)
def test_a_cookie_is_only_for_pages_of_exactly_this_origin(
    address: str, method: str, origin: str
) -> None:
    """Another port of the same host is another origin, though SameSite does not see it."""
    client = signed_in(address)
    foreign = {"Origin": origin.replace("PORT", address.rpartition(":")[2])}
    assert code(client.request(method, "/v1/jobs/x", headers=foreign)) == (
        403,
        "origin_not_allowed",
    )


@pytest.mark.parametrize(
    ("site", "status"),
    [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)],
)
def test_what_only_reads_has_no_origin_but_a_site(address: str, site: str, status: int) -> None:
    client = signed_in(address)
    del client.headers["Origin"]
    assert client.get("/v1/jobs", headers={"Sec-Fetch-Site": site}).status_code == status


def test_what_changes_something_needs_an_origin(address: str) -> None:
    client = signed_in(address)
    del client.headers["Origin"]
    assert code(client.delete("/v1/jobs/x")) == (403, "origin_not_allowed")


@pytest.mark.parametrize("path", SOCKETS)
def test_a_cookie_opens_sockets_for_its_own_page_only(address: str, path: str) -> None:
    cookie = {"Cookie": f"{COOKIE}={signed_in(address).cookies[COOKIE]}"}
    url = f"ws://{address}{path}"
    with connect(url, additional_headers=cookie | {"Origin": f"http://{address}"}) as socket:
        assert json.loads(socket.recv())["type"]
    for origin in ("http://evil.example", "http://127.0.0.1:1", ""):
        with pytest.raises(InvalidStatus) as refused:
            connect(url, additional_headers=cookie | ({"Origin": origin} if origin else {}))
        assert refused.value.response.status_code == 403


def test_a_sign_in_ends_with_its_key(address: str, config: Config, tmp_path: Path) -> None:
    client = signed_in(address)
    assert client.get("/v1/jobs").status_code == 200
    keyed(tmp_path, bolt={Scope.JOBS})
    wait_for(lambda: client.get("/v1/jobs").status_code == 401, 30)
    assert client.get("/v1/sign_in").json()["signed_in"] is False


def test_a_sign_in_loses_what_its_key_loses(address: str, tmp_path: Path) -> None:
    client = signed_in(address)
    assert client.get("/v1/metrics").status_code == 200
    keyed(tmp_path, acme={Scope.JOBS})
    wait_for(lambda: client.get("/v1/metrics").status_code == 401, 30)


def test_what_a_cookie_has_opened_ends_with_its_key(address: str, tmp_path: Path) -> None:
    cookie = {"Cookie": f"{COOKIE}={signed_in(address).cookies[COOKIE]}"}
    url = f"ws://{address}/v1/transcribe/stream"
    own = f"http://{address}"
    with connect(url, origin=own, additional_headers=cookie) as socket:  # type: ignore[call-overload]
        assert json.loads(socket.recv())["type"]
        keyed(tmp_path, bolt={Scope.JOBS})
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=30)
    assert closed.value.rcvd and closed.value.rcvd.code == 1008


def test_a_cookie_mints_client_secrets_which_cannot_sign_in(address: str) -> None:
    client = signed_in(address)
    body = {"session": {"type": "transcription"}}
    secret = client.post("/v1/realtime/client_secrets", json=body).json()["value"]
    shown = {"Authorization": f"Bearer {secret}"}
    with connect(f"ws://{address}/v1/transcribe/stream", additional_headers=shown) as socket:
        assert json.loads(socket.recv())["type"]
    assert code(page(address).post("/v1/sign_in", json={"key": secret})) == (401, "invalid_api_key")


def test_to_ask_is_no_attempt_to_get_in(address: str, config: Config) -> None:
    log = Path(config.audit_file)
    assert page(address).get("/v1/sign_in").json()["signed_in"] is False
    page(address, Authorization="Bearer no-such-key-0123456789").get("/v1/sign_in")
    wait_for(lambda: log.exists() and "unknown" in log.read_text(), 10)
    assert "missing" not in log.read_text()


def test_no_log_has_the_cookie_or_the_key(
    address: str, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "voxray")
    client = signed_in(address)
    client.get("/v1/jobs")
    client.get("/v1/jobs", headers={"Origin": "http://evil.example"})
    value = client.cookies[COOKIE]
    client.delete("/v1/sign_in")
    client.cookies.clear()
    client.cookies.set(COOKIE, value[:-3])
    assert client.get("/v1/jobs").status_code == 401
    log = Path(config.audit_file)
    wait_for(lambda: log.exists() and "login_refused" in log.read_text(), 10)
    written = [vars(it) for it in caplog.records if it.name.startswith("voxray")]
    assert written, "requests are logged"
    for secret in (value[:-3], key_of("acme")):
        assert secret not in log.read_text() and secret not in str(written)


def test_a_cookie_cannot_be_made_or_changed(address: str) -> None:
    client = signed_in(address)
    value = client.cookies[COOKIE]
    forged = sign_in.signed(SigningKeys([bytes(32)]), _acme(), 1 << 33)
    for wrong in (value[:-3], forged, "x", value + "x", "a.b.c", ""):
        client.cookies.clear()
        client.cookies.set(COOKIE, wrong)
        assert client.get("/v1/jobs").status_code == 401


def test_a_cookie_ends_in_time() -> None:
    keys = SigningKeys([bytes(32)])
    value = sign_in.signed(keys, _acme(), 100)
    assert sign_in.opened(keys, value, 99).expires == 100
    with pytest.raises(Exception, match="sign in again"):
        sign_in.opened(keys, value, 101)


def _acme() -> Principal:
    return Principal("acme", "k-1", ALL)


def test_where_no_key_is_needed_everybody_is_signed_in(tmp_path: Path) -> None:
    storage = StorageConfig(directory=str(tmp_path))
    with served(Config(profile="sim", storage=storage)) as address, page(address) as client:
        who = client.get("/v1/sign_in").json()
        assert who["needs_key"] is False and who["signed_in"] and who["scopes"] == sorted(ALL)
        answer = client.post("/v1/sign_in", json={"key": "anything"})
        assert answer.json() == who and "set-cookie" not in answer.headers
