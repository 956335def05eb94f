"""S8: what browsers are told with every answer, and which pages may read it."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from serve_app.api import create_app
from serve_app.config import Config
from serve_app.security.answer_headers import ALWAYS
from serve_app.security.headers import SecurityHeaders
from tests.fakes import models, served, serving
from tests.waiting import wait_for

FRIEND = "https://app.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,x-stainless-lang",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    args: dict[str, Any] = {
        "profile": "sim",
        "storage": {"directory": str(tmp_path_factory.mktemp("headers"))},
        "browser": {"origins": [f"{FRIEND}/", "http://localhost:3000"]},
    }
    with served(Config.model_validate(args)) as address:
        yield address


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/health", 200),
        ("GET", "/v1/models", 200),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/jobs", 200),
        ("GET", "/v1/jobs/none", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/v1/jobs", 405),
        ("OPTIONS", "/v1/jobs", 204),
        ("POST", "/v1/chat/completions", 400),
        ("GET", "/v1/realtime", 426),
        ("GET", "/docs", 200),
        ("GET", "/docs/assets/swagger-ui.css", 200),
        ("GET", "/web/voxray.js", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/socket/?EIO=4&transport=polling", 200),
    ],
)
def test_every_answer_has_them(address: str, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"http://{address}{path}")
    assert answer.status_code == status, answer.text
    for name in ALWAYS:
        assert len(answer.headers.get_list(name)) == 1, name
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    is_file = path.startswith(("/web/", "/docs/assets/"))
    assert answer.headers["cache-control"] == ("no-cache" if is_file else "no-store")
    assert "unsafe" not in answer.headers["content-security-policy"] or path == "/docs"
    assert "strict-transport-security" not in answer.headers


def test_a_refused_handshake_has_them(address: str) -> None:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(
            f"GET /v1/realtime HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        answer = client.recv(65_536).decode()
    assert answer.startswith("HTTP/1.1 403")
    for name, value in ALWAYS.items():
        assert f"{name}: {value}".lower() in answer.lower()


def test_refusals_before_any_route_have_them(tmp_path: Path) -> None:
    """And a page of the list may read why."""
    args: dict[str, Any] = {
        "profile": "sim",
        "storage": {"directory": str(tmp_path)},
        "browser": {"origins": [FRIEND]},
        "tenants": {"default": {"limits": {"requests_per_minute": 3}}},
        "limits": {"max_json_bytes": 1024},
    }
    sent = {"origin": FRIEND}
    with serving(Config.model_validate(args)) as here:
        url = f"http://{here.address}/v1/chat/completions"
        too_large = httpx.post(url, headers=sent, json={"messages": "x" * 2000})
        answers = [httpx.get(f"http://{here.address}/v1/models", headers=sent) for _ in range(3)]
        here.begin_drain()
        wait_for(here.drain.begun.is_set)
        draining = httpx.post(url, headers=sent, json={})
    refused = [too_large, answers[-1], draining]
    assert [answer.status_code for answer in refused] == [413, 429, 503]
    for answer in refused:
        assert {name.lower() for name in ALWAYS} <= set(answer.headers)
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert answer.json()["error"]["code"]


def test_an_internal_error_has_them_and_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate({"profile": "sim", "browser": {"origins": [FRIEND]}})
    app = create_app(models(), config)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(f"secret at {Path(__file__)}")

    client = TestClient(app, "http://localhost", raise_server_exceptions=False)
    answer = client.get("/broken", headers={"origin": FRIEND})
    assert answer.status_code == 500 and set(answer.json()) == {"error"}
    assert "secret" not in answer.text and "Traceback" not in answer.text
    assert {name.lower() for name in ALWAYS} <= set(answer.headers)
    assert answer.headers["access-control-allow-origin"] == FRIEND


def test_errors_tell_nothing_of_the_inside(address: str) -> None:
    wrong = [
        ("GET", "/v1/jobs/%00", None),
        ("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", None),
        ("GET", "/v1/jobs?limit=x", None),
        ("POST", "/v1/chat/completions", b"{"),
        ("POST", "/v1/audio/speech", b'{"input": {}}'),
        ("POST", "/v1/transcribe", b"RIFFnothing"),
        ("POST", "/config/update", b'{"x": 1}'),
        ("DELETE", "/v1/jobs/'; drop table jobs; --", None),
    ]
    for method, path, body in wrong:
        answer = httpx.request(method, f"http://{address}{path}", content=body, timeout=30)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        for inside in ("Traceback", "serve_app", "site-packages", "sqlite", "SELECT", ".py"):
            assert inside not in answer.text, (path, inside)
        assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"


@pytest.mark.parametrize(
    ("host", "proto", "expected"),
    [
        ("voice.example", "https", "max-age=5"),
        ("voice.example:443", "https", "max-age=5"),
        ("voice.example:8443", "https", None),  # it would bind every port of the name
        ("voice.example", "http", None),
        ("voice.example", "", None),
        ("localhost", "https", None),
        ("app.localhost", "https", None),
        ("192.0.2.1", "https", None),
        ("[2001:db8::1]", "https", None),
    ],
)
def test_hsts_only_over_tls_and_for_a_name(host: str, proto: str, expected: str | None) -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = {"host": host, "x-forwarded-proto": proto}
    client = TestClient(SecurityHeaders(app, 5), headers=sent)
    assert client.get("/").headers.get("strict-transport-security") == expected
    client = TestClient(SecurityHeaders(app, 0), headers=sent)
    assert "strict-transport-security" not in client.get("/").headers


@pytest.mark.parametrize(
    ("host", "proto", "has_it"),
    [
        ("localhost:8000", "http", True),
        ("app.localhost", "http", True),
        ("127.0.0.1:8000", "http", True),
        ("[::1]:8000", "http", True),
        ("voice.example", "https", True),
        ("voice.example", "http", False),
        ("192.0.2.1:8000", "http", False),
    ],
)
def test_no_header_that_browsers_complain_of(host: str, proto: str, has_it: bool) -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = {"host": host, "x-forwarded-proto": proto}
    answer = TestClient(SecurityHeaders(app, 0), headers=sent).get("/")
    assert ("cross-origin-opener-policy" in answer.headers) is has_it


def test_a_page_of_the_list_may_read_answers_and_refusals(address: str) -> None:
    for method, path in (("GET", "/v1/models"), ("GET", "/nothing"), ("POST", "/v1/jobs")):
        answer = httpx.request(method, f"http://{address}{path}", headers={"origin": FRIEND})
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert answer.headers["access-control-expose-headers"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert "origin" in answer.headers["vary"].lower()
        assert answer.headers["x-request-id"]


def test_a_preflight_needs_no_key(address: str) -> None:
    for path in ("/v1/jobs", "/v1/audio/speech", "/nothing"):
        url, headers = f"http://{address}{path}", {"origin": FRIEND, **PREFLIGHT}
        answer = httpx.options(url, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert "POST" in answer.headers["access-control-allow-methods"]
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed and "x-stainless-lang" in allowed


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://app.example.evil"])
def test_another_page_may_read_nothing(address: str, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        headers = {"origin": origin, "authorization": "Bearer some", **PREFLIGHT}
        answer = httpx.request(method, f"http://{address}/v1/jobs", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"origins": ["*"]},
        {"origins": ["app.example"]},
        {"origins": ["https://app.example/path"]},
        {"origins": ["https://*.example"]},
        {"origins": ["null"]},
        {"hosts": ["*"]},
        {"hosts": ["https://voice.example"]},
        {"hosts": [""]},
    ],
)
def test_the_lists_have_no_wildcards(wrong: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="is not"):
        Config.model_validate({"browser": wrong})


def test_what_a_route_says_itself_stays() -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        raw = Headers({"cache-control": "max-age=60"}).raw
        await send({"type": "http.response.start", "status": 200, "headers": list(raw)})

    assert TestClient(SecurityHeaders(app, 0)).get("/").headers["cache-control"] == "max-age=60"
