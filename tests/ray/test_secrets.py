"""A whole server's secrets, and what its clients say, are nowhere where others could read them."""

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from websockets.sync.client import connect as websocket

from loadtest.speech import wav
from serve_app.cluster.environment import ONE_MACHINE
from tests.api.sockets.test_live_socket import PATH, chunks
from tests.ray.test_logs import folder
from tests.secret_word import WORD
from tests.server import Server, running
from tests.stores import Postgres
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


def key_bytes(name: str) -> bytes:
    """32 bytes that can be found again, also within base64."""
    return f"canary-{name}".encode().ljust(32, b"~")


def encoded(name: str) -> str:
    return base64.b64encode(key_bytes(name)).decode()


API_KEY = "canary-api-key-0123456789abcdef"
WRONG_KEY = "canary-wrong-key-0123456789abcdef"
FILE, HOTWORD, ONCE = "canary-file-name.wav", "canary-hotword", "canary-idempotency-key"
HOOK = "http://127.0.0.1:9/canary-hook"
INSTRUCTIONS = "canary-instructions"
PASSWORD = "canary-database-password"

ENVIRONMENT = {
    "VOXRAY_API_KEY": API_KEY,
    "VOXRAY_KEY_PEPPER": encoded("pepper"),
    "VOXRAY_STORAGE_KEY": encoded("storage"),
    "VOXRAY_SIGNING_KEY": encoded("signing"),
    "VOXRAY_WEBHOOK_SECRET": "whsec_" + encoded("webhook"),
    "OPENAI_API_KEY": "canary-openai-key",
}
ARGS: dict[str, Any] = {
    "profile": "sim",
    "auth": "keys",
    "transcriber": {"engine": "tests.secret_word:Secretive"},
    "storage": {"encrypt": True},
    "jobs": {"webhook": {"allow_private": True}},
}

TABLES = """
import base64, json, sys
import ray
from ray._private import state
from ray.experimental import internal_kv
ray.init(sys.argv[1], log_to_driver=False)
found = []
for name in (None, "serve", "fun", "job", "session", "dashboard", "usage_stats", "tracing"):
    space = name.encode() if name else None
    for key in internal_kv._internal_kv_list(b"", namespace=space):
        found += [key, internal_kv._internal_kv_get(key, namespace=space) or b""]
gcs = state.state._connect_and_get_accessor()
found += [*gcs.get_node_table(), *gcs.get_worker_table(), *gcs.get_actor_table(None, None)]
found += gcs.get_job_table(skip_submission_job_info_field=True)
found = [it if isinstance(it, bytes) else str(it).encode() for it in found]
print(json.dumps([base64.b64encode(it).decode() for it in found]))
"""
"""Everything that Ray's head knows."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Server]:
    postgres.clear()
    where = tmp_path_factory.mktemp("secrets")
    args = {**ARGS, "storage": {**ARGS["storage"], "directory": str(where / "data")}}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("VOXRAY_DATABASE_URL", postgres.url.replace("@", f":{PASSWORD}@"))
        with running(where, args, options=("--log-format", "json")) as started:
            yield started


def secrets_of(first_key: str, client_secret: str) -> dict[str, bytes]:
    keys = {name: value.encode() for name, value in ENVIRONMENT.items()}
    raw = {f"{it}, raw": key_bytes(it) for it in ("pepper", "storage", "signing", "webhook")}
    said = (WRONG_KEY, FILE, HOTWORD, ONCE, HOOK, INSTRUCTIONS, PASSWORD, WORD)
    return {
        **keys,
        **raw,
        **{it: it.encode() for it in said},
        "first key": first_key.encode(),
        "client secret": client_secret.encode(),
    }


def found(secrets: dict[str, bytes], *texts: bytes) -> set[str]:
    return {name for name, secret in secrets.items() if any(secret in it for it in texts)}


def use_everything(server: Server, talk: bytes) -> tuple[str, str, list[bytes]]:
    """The client secret, the id of a job, and answers that must not have any secret in them."""
    told = []
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=60
    ) as client:
        form = {"hotwords": HOTWORD, "webhook": HOOK, "idempotency_key": ONCE}
        job = client.post("/v1/jobs", files={"file": (FILE, wav(talk))}, data=form).json()
        path = f"/v1/jobs/{job['id']}"
        wait_for(lambda: client.get(path).json()["state"] == "completed", 60, 0.2)
        assert WORD in client.get(f"{path}/results").text
        session = {"session": {"type": "realtime", "instructions": INSTRUCTIONS}}
        minted = client.post("/v1/realtime/client_secrets", json=session)
        secret = str(minted.json()["value"])
        listen(server, {"Authorization": f"Bearer {API_KEY}"}, talk)
        converse(server, secret)
        for ask in ("/v1/status", "/v1/metrics", "/openapi.json", "/v1/models", "/v1/usage"):
            told.append(client.get(ask).content)
        told.append(client.post("/config/update", json={"limits": {"max_sessions": 99}}).content)
        told.append(client.post("/config/update", json={"storage": {"encrypt": False}}).content)
        told.append(client.post("/v1/jobs", files={"file": ("x", b"RIFF")}).content)
    refused = ({"Authorization": f"Bearer {WRONG_KEY}"}, {"x-api-key": WRONG_KEY})
    told += [httpx.get(f"{server.url}/v1/jobs", headers=it).content for it in refused]
    told.append(httpx.get(f"{server.url}/v1/jobs?api_key={WRONG_KEY}").content)
    return secret, str(job["id"]), told


def listen(server: Server, headers: dict[str, str], talk: bytes) -> None:
    with websocket(f"ws://{server.address}{PATH}", additional_headers=headers) as socket:
        for chunk in chunks(talk):
            socket.send(chunk)
        socket.send('{"type": "stop"}')
        assert any(WORD in str(event) for event in socket)


def converse(server: Server, secret: str) -> None:
    protocols: Any = ["realtime", f"openai-insecure-api-key.{secret}"]
    with websocket(f"ws://{server.address}/v1/realtime", subprotocols=protocols) as socket:
        assert json.loads(socket.recv(10))["session"]["instructions"] == INSTRUCTIONS


def files_of(server: Server) -> dict[Path, bytes]:
    """Of its data, of Ray and HAProxy, and what it has said."""
    temporary = Path(tempfile.gettempdir())
    folders = [server.log.parent, folder(server)]
    for pid in (server.process.pid, *(it.pid for it in server.descendants())):
        folders += temporary.glob(f"voxray-*-{pid}")
    paths = {it for top in folders for it in top.rglob("*") if it.is_file()}
    return {it: it.read_bytes() for it in paths}


def tables_of(server: Server) -> list[bytes]:
    ports = [
        part.split("=")[1]
        for process in server.descendants()
        for part in process.cmdline()
        if part.startswith("--gcs-address=")
    ]
    environment = {**os.environ, **ONE_MACHINE, "RAY_AUTH_MODE": "token"}
    for name in ENVIRONMENT:
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", TABLES, ports[0]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [base64.b64decode(it) for it in json.loads(done.stdout.splitlines()[-1])]


def titles(server: Server) -> list[bytes]:
    lines = []
    for process in (psutil.Process(server.process.pid), *server.descendants()):
        lines.append(" ".join(process.cmdline()).encode())
    return lines


def test_no_secret_is_anywhere(server: Server, postgres: Postgres, talk: bytes) -> None:
    first_key = next(
        line.strip()
        for line in server.log.read_text().splitlines()
        if line.strip().startswith("vx_")
    )
    secret, job, answers = use_everything(server, talk)
    secrets = secrets_of(first_key, secret)
    postgres.ask("CHECKPOINT")
    database = [it for it in (postgres.folder / "db").rglob("*") if it.is_file()]
    files = files_of(server)
    assert len(files) > 50
    places = {it: found(secrets, text) for it, text in files.items()}
    assert {it: names for it, names in places.items() if names} == {server.log: {"first key"}}
    assert found({**secrets, "a job": job.encode()}, *map(Path.read_bytes, database)) == {"a job"}
    assert found(secrets, *answers) == set()
    assert found(secrets, *titles(server)) == set()
    tables = tables_of(server)
    assert any(b"secretive" in it.lower() for it in tables), "this has the server's settings"
    assert found(secrets, *tables) == set()
