"""`/v1/keys`: what `voxray keys` does, over HTTP."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from serve_app.config import Config
from tests.fakes import served
from tests.waiting import wait_for

ADMIN = "an-admin-of-the-environment-0123456789"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", base64.b64encode(bytes(range(32))).decode())
    monkeypatch.setenv("VOXRAY_API_KEY", ADMIN)
    args = {"profile": "sim", "storage": {"directory": str(tmp_path)}, "auth": {"mode": "keys"}}
    with served(Config.model_validate(args)) as address:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        with httpx.Client(base_url=f"http://{address}", headers=headers, timeout=30) as client:
            yield client


def use(client: httpx.Client, secret: str, path: str = "/v1/jobs") -> int:
    return client.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


def test_a_key_is_made_used_listed_and_revoked(client: httpx.Client, tmp_path: Path) -> None:
    asked = {"name": "night shift", "tenant": "acme", "scopes": ["jobs"], "expires_in_s": 3600}
    made = client.post("/v1/keys", json=asked)
    key = made.json()
    assert made.status_code == 201 and key["secret"].startswith("vx_")
    assert key["expires"] == pytest.approx(key["created"] + 3600)
    wait_for(lambda: use(client, key["secret"]) == 200, 30)
    assert use(client, key["secret"], "/v1/keys") == 403
    (listed,) = client.get("/v1/keys").json()["data"]
    assert (listed["name"], listed["tenant"], listed["state"]) == ("night shift", "acme", "valid")
    assert key["secret"] not in client.get("/v1/keys").text
    gone = client.delete(f"/v1/keys/{key['id']}").json()
    assert gone["state"] == "revoked" and gone["revoked"]
    wait_for(lambda: use(client, key["secret"]) == 401, 30)
    log = tmp_path / "audit.log"
    wait_for(lambda: "key_revoked" in log.read_text(), 10)
    assert "key_created" in log.read_text() and key["secret"] not in log.read_text()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": ["jobs"], "tenant": "../x"},
        {"scopes": ["jobs"], "name": "a\nb"},
        {"scopes": ["jobs"], "expires_in_s": 0},
        {"scopes": ["jobs"], "more": 1},
    ],
)
def test_what_is_no_key_is_refused(client: httpx.Client, body: object) -> None:
    assert client.post("/v1/keys", json=body).status_code in (400, 422)
    assert client.get("/v1/keys").json()["data"] == []


def test_an_absent_key_cannot_be_revoked(client: httpx.Client) -> None:
    answer = client.delete("/v1/keys/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "key_not_found")


def test_a_server_without_keys_of_its_own_says_so(tmp_path: Path) -> None:
    args = {"profile": "sim", "storage": {"directory": str(tmp_path)}}
    with served(Config.model_validate(args)) as address:
        for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/x")):
            body = {"scopes": ["jobs"]} if method == "POST" else None
            answer = httpx.request(method, f"http://{address}/v1/keys{path}", json=body)
            assert answer.json()["error"]["code"] == "keys_not_managed"
