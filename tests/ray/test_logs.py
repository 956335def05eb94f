"""What a whole server writes down: its own lines, and everything in Ray's folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

from loadtest.speech import wav
from tests.api.sockets.test_live_socket import chunks, converse
from tests.collector import Collector, Seen, collecting
from tests.server import Server, running
from tests.waiting import wait_for

pytestmark = pytest.mark.ray

CANARIES = {
    "chat": b"canarychat",
    "speech": b"canaryspeech",
    "voice": b"canaryvoice",
    "hotword": b"canaryhotword",
    "file": b"canaryfile",
    "key": b"canarykey",
    "query": b"canaryquery",
    "path": b"canarypath",
    "instructions": b"canaryinstructions",
}
DEPLOYMENTS = {"Ingress", "Vad", "Transcriber", "Chat", "Speaker", "Diarizer", "Worker"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Server]:
    args = {"profile": "sim", "chat": {"engine": "tests.failing_chat:FailingChat"}}
    options = ("--log-format", "json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        with running(tmp_path_factory.mktemp("logs"), args, options=options) as started:
            yield started


def lines(server: Server) -> list[dict[str, Any]]:
    """On stdout, which is the same file as stderr here."""
    found = server.log.read_text().splitlines()
    return [json.loads(line) for line in found if line.startswith("{")]


def of(event: str, server: Server) -> list[dict[str, Any]]:
    return [line for line in lines(server) if line["event"] == event]


def folder(server: Server) -> Path:
    """Ray's, of this server."""
    started = psutil.Process(server.process.pid).children()
    (found,) = [it for child in started for it in Path("/tmp/ray").glob(f"session_*_{child.pid}")]
    return found


def say_everything(server: Server, talk: bytes) -> str:
    """Canaries in everything that a client can send; the id of a job."""
    said = {name: word.decode() for name, word in CANARIES.items()}
    key = {"Authorization": f"Bearer {said['key']}"}
    with httpx.Client(base_url=server.url, headers=key) as client:
        return say(client, server, said, talk)


def say(client: httpx.Client, server: Server, said: dict[str, str], talk: bytes) -> str:
    messages = [{"role": "user", "content": said["chat"]}]
    client.post("/v1/chat/completions", json={"messages": messages})
    client.post("/v1/audio/speech", json={"input": said["speech"]})
    client.post("/v1/audio/speech", json={"input": "hello", "voice": said["voice"]})
    client.post(f"/v1/{said['path']}?{said['query']}=1")
    client.post(
        "/v1/realtime/client_secrets", json={"session": {"instructions": said["instructions"]}}
    )
    start = json.dumps({"type": "start", "hotwords": [said["hotword"]]})
    converse(server.address, start, *chunks(talk)[:3])
    converse(server.address, *chunks(talk))
    client.get(f"/ws?{said['query']}=1")
    files = {"file": (f"{said['file']}.wav", wav(talk))}
    return str(client.post("/v1/jobs", files=files).json()["id"])


def test_every_replica_logs_to_stdout_and_nothing_has_what_clients_said(
    server: Server, talk: bytes
) -> None:
    id_ = say_everything(server, talk)
    wait_for(lambda: any(it["job"] == id_ for it in of("job_ended", server)), 60)
    assert {it["deployment"] for it in of("replica_started", server)} == DEPLOYMENTS
    (failed,) = of("engine_request_failed", server)
    assert (failed["deployment"], failed["error"]) == ("Chat", "ValueError")
    ended = next(it for it in of("request_ended", server) if it["route"] == "/v1/audio/speech")
    assert len(ended["request"]) >= 32  # Serve's
    closed = of("session_closed", server)
    assert any(it["words"] > 0 and it["tenant"] == "default" for it in closed)

    files = [it for it in folder(server).rglob("*") if it.is_file()]
    written = {it: it.read_bytes() for it in (*files, server.log)}
    assert len(written) > 50
    own = [it for it in files if it.name.startswith("voxray_")]
    assert {it.name.split("_")[1] for it in own} == DEPLOYMENTS
    found = {
        (name, file.name)
        for name, word in CANARIES.items()
        for file, text in written.items()
        if word in text
    }
    assert found == set()


def test_a_trace_goes_through_the_processes_without_what_clients_said(
    server: Server, collector: Collector
) -> None:
    """After the test above."""

    def children() -> list[Seen]:
        asked = collector.named("POST /v1/audio/speech") + collector.named(
            "POST /v1/chat/completions"
        )
        return [child for span in asked for child in collector.children(span)]

    wait_for(lambda: {it.name for it in children()} == {"chat", "speaker"})
    assert {it.deployment for it in children()} == {"Chat", "Speaker"}
    (job,) = wait_for(lambda: collector.named("job"))
    assert job.deployment == "Worker"
    told = str(collector.spans)
    assert [name for name, word in CANARIES.items() if word.decode() in told] == []
    failed = of("engine_request_failed", server)[0]
    assert failed["deployment"] == "Chat"


def test_lines_are_written_when_they_happen(server: Server) -> None:
    before = len(of("request_ended", server))
    httpx.get(f"{server.url}/v1/health")
    wait_for(lambda: len(of("request_ended", server)) > before, 1.0)
    assert lines(server)[-1]["event"] == "request_ended"
