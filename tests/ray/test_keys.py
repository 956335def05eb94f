"""`voxray run` with `auth: keys`, through HAProxy: from the first start to a key that is revoked."""

import base64
import json
import os
import time
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serve_app.identity.api_key import parsed_key
from tests.server import Server, running, voxray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    args = {"profile": "sim", "auth": "keys"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_KEY_PEPPER", base64.b64encode(os.urandom(32)).decode())
        with running(tmp_path_factory.mktemp("keys"), args, ready_s=240) as started:
            yield started


def test_from_the_first_key_to_a_revoked_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(word for word in server.log.read_text().split() if parsed_key(word))
    config = ("--config", str(server.log.with_name("serve_config.yaml")))
    assert httpx.get(f"{server.url}/v1/jobs").json()["error"]["code"] == "missing_api_key"
    status = ("status", "--json", "--server", server.url)
    refused = voxray(*status)
    assert refused.returncode == 1 and "VOXRAY_API_KEY" in refused.stderr
    monkeypatch.setenv("VOXRAY_API_KEY", first)
    assert json.loads(voxray(*status).stdout)["status"] == "healthy"

    made = voxray("keys", "create", "--tenant", "acme", "--scopes", "transcribe", *config)
    key = {"x-api-key": made.stdout.strip()}
    stream = f"ws://{server.address}/v1/transcribe/stream"
    for _ in range(2):  # the second finds it in memory
        assert httpx.get(f"{server.url}/v1/models", headers=key).status_code == 200
    with connect(stream, additional_headers=key) as live, connect(stream, additional_headers=key):
        assert voxray("keys", "revoke", key["x-api-key"], *config).returncode == 0
        began = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                live.recv(5)
        assert closed.value.rcvd and closed.value.rcvd.code == 1008
        assert time.monotonic() - began < 5
    with pytest.raises(InvalidStatus, match="401"):
        connect(stream, additional_headers=key)
