"""Paths of older servers, Socket.IO, and settings that change while the server runs."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import socketio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket

from loadtest.speech import wav
from serve_app.api.legacy import views
from serve_app.api.legacy.streaming import _Unsent
from serve_app.config import Config
from serve_app.jobs.alignment import label
from serve_app.jobs.job import STEP_SHARES, JobState
from serve_app.live.backlog import ReaderTooSlow
from serve_app.live.events import TranscriptUpdate
from tests.api.sockets.test_live_socket import PATH, chunks, converse, events_of, of, words
from tests.fakes import models, served
from tests.jobs.test_jobs import ENDED, Client, code_of, config, long, running, slow


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running(config(tmp_path_factory.mktemp("older"))) as client:
        yield client


def post(client: Client, path: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{client.url}{path}", timeout=30, **options)


def test_upload_status_results_and_deletion(client: Client, talk: bytes) -> None:
    answer = post(client, "/api/upload?num_speakers=2", files={"file": ("a.wav", wav(talk))})
    id_ = answer.json()["job_id"]
    assert answer.status_code == 202
    assert answer.json().keys() == {"job_id", "status", "message"}
    assert answer.json()["status"] == "queued" and id_ in answer.json()["message"]
    assert client.job(id_)["options"]["speakers"] == 2
    client.until(id_, *ENDED)
    assert client.get(f"/api/status/{id_}").json() == {
        "job_id": id_,
        "status": "completed",
        "progress": 100.0,
        "step": "Completed",
        "error": None,
    }
    assert id_ in [job["id"] for job in client.get("/api/jobs").json()["jobs"]]
    assert client.get(f"/api/export/{id_}/srt").text.startswith("1\n")
    assert httpx.delete(f"{client.url}/api/jobs/{id_}").status_code == 204
    assert client.get(f"/api/status/{id_}").status_code == 404
    wrong = post(client, "/api/upload?num_speakers=0", files={"file": ("a.wav", wav(talk))})
    assert (wrong.status_code, code_of(wrong)) == (400, "invalid_request")
    assert client.get(f"/api/results/{id_}").status_code == 404


def test_older_results_field_by_field(client: Client, talk: bytes) -> None:
    answer = post(client, "/api/upload?num_speakers=2", files={"file": ("a.wav", wav(talk))})
    id_ = answer.json()["job_id"]
    client.until(id_, *ENDED)
    ours = client.get(f"/v1/jobs/{id_}/results").json()
    result = client.get(f"/api/results/{id_}").json()
    assert result == {
        "segments": [
            {"start": it["start_ms"] / 1000, "end": it["end_ms"] / 1000, "text": it["text"]}
            for it in ours["segments"]
        ],
        "aligned_segments": [
            {
                "start": it["start_ms"] / 1000,
                "end": it["end_ms"] / 1000,
                "text": it["text"],
                "speaker": {"A": "SPEAKER_00", "B": "SPEAKER_01"}[it["speaker"]],
            }
            for it in ours["aligned_segments"]
        ],
        "full_text": ours["full_text"],
        "language": ours["language"],
        "duration": ours["duration_ms"] / 1000,
        "speaker_turns": [
            {
                "speaker": {"A": "SPEAKER_00", "B": "SPEAKER_01"}[it["speaker"]],
                "start": it["start_ms"] / 1000,
                "end": it["end_ms"] / 1000,
            }
            for it in ours["speaker_turns"]
        ],
        "provider": "sim",
        "performance_metrics": result["performance_metrics"],
    }
    assert result["segments"] and result["speaker_turns"]
    metrics = result["performance_metrics"]
    assert metrics["total_duration"] == ours["performance_metrics"]["total_s"]
    assert {"transcribe", "diarize", "align"} <= metrics["stages"].keys()


def test_older_status_while_it_works(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path), transcriber=slow(1.0)) as client:
        files = {"file": ("a.wav", wav(long(talk, 60)))}
        id_ = post(client, "/api/upload", files=files).json()["job_id"]
        client.until(id_, "running")
        shown = client.get(f"/api/status/{id_}").json()
        early = client.get(f"/api/results/{id_}")
        assert (shown["job_id"], shown["status"], shown["error"]) == (id_, "processing", None)
        assert 0 <= shown["progress"] < 100 and shown["step"] in views.STEPS.values()
        assert early.status_code == 202 and early.json()["status"] == "processing"
        client.delete(id_)
        client.until(id_, *ENDED)
        cancelled = client.get(f"/api/status/{id_}").json()
        assert (cancelled["status"], cancelled["step"]) == ("failed", "Cancelled")
        assert cancelled["error"] == "The job was cancelled"


def test_a_failed_job_says_why_in_the_older_shape(client: Client) -> None:
    answer = post(client, "/api/upload", files={"file": ("a.wav", wav(b"")[:44])})
    client.until(answer.json()["job_id"], *ENDED)
    shown = client.get(f"/api/status/{answer.json()['job_id']}").json()
    assert (shown["status"], shown["step"]) == ("failed", "Failed") and shown["error"]


def test_older_uploads_that_are_refused(tmp_path: Path, client: Client, talk: bytes) -> None:
    wrong = post(client, "/api/upload", files={"file": ("a.txt", b"no recording, only some text")})
    assert (wrong.status_code, code_of(wrong)) == (400, "unsupported_media")
    assert Config(profile="sim").jobs.max_upload_bytes == 500 * 1024 * 1024
    with served(config(tmp_path, max_upload_bytes=1000)) as address:
        files = {"file": ("a.wav", wav(talk))}
        large = httpx.post(f"http://{address}/api/upload", files=files, timeout=30)
        assert (large.status_code, code_of(large)) == (413, "upload_too_large")


def test_every_step_has_a_sentence_and_every_label_its_number() -> None:
    assert STEP_SHARES.keys() <= views.STEPS.keys()
    assert set(JobState) == views.STATUSES.keys()
    for number in (0, 1, 25, 26, 51, 52, 701, 702):
        assert views.speaker(label(number)) == f"SPEAKER_{number:02}"
    assert views.speaker(None) is None


def test_an_upload_is_listed_shown_and_deleted_as_a_transcription(
    client: Client, talk: bytes
) -> None:
    answer = post(client, "/api/transcribe/upload", files={"file": ("a.wav", wav(talk))})
    id_ = answer.json()["id"]
    client.until(id_, *ENDED)
    assert id_ in [it["id"] for it in client.get("/api/transcriptions").json()["transcriptions"]]
    shown = client.get(f"/api/transcription/{id_}").json()
    assert shown["state"] == "completed" and shown["result"]["words"]
    assert httpx.delete(f"{client.url}/api/transcription/{id_}").status_code == 204


def test_a_live_session_is_kept_as_a_transcription(client: Client, talk: bytes) -> None:
    opened = post(client, "/api/transcribe/start", json={"language": "en"})
    assert opened.status_code == 201
    id_, path = opened.json()["id"], opened.json()["websocket"]
    assert path == f"{PATH}?transcription={id_}"
    assert client.get(f"/api/transcription/{id_}").json()["state"] == "running"
    address = client.url.removeprefix("http://")
    events, _ = converse(address, *chunks(talk), path=path)
    job = client.until(id_, *ENDED)
    assert (job["state"], job["kind"]) == ("completed", "live")
    result = client.get(f"/api/transcription/{id_}").json()["result"]
    assert result["full_text"] == words(events) and result["duration_ms"] == len(talk) // 32
    assert client.get(f"/v1/jobs/{id_}/export/vtt").text.startswith("WEBVTT")
    assert client.get("/v1/jobs").json()["data"][0]["id"] == id_
    assert client.delete(id_).status_code == 204
    waiting = post(client, "/api/transcribe/start").json()["id"]
    assert client.delete(waiting).json()["state"] == "cancelled"
    assert code_of(post(client, "/api/transcribe/start", json={"x": 1})) == "invalid_request"


def test_a_session_that_cannot_be_recorded_gets_an_error_and_continues(
    client: Client, talk: bytes
) -> None:
    """The error comes as soon as the database has answered, which takes longer than a short talk that
    is sent all at once."""

    async def go(id_: str) -> tuple[dict[str, Any], list[dict[str, Any]], int | None]:
        address = f"{client.url.replace('http', 'ws')}{PATH}?transcription={id_}"
        async with connect(address) as socket, asyncio.timeout(30):
            hello, error = [json.loads(await socket.recv()) for _ in range(2)]
            assert hello["type"] == "session"
            for chunk in chunks(talk):
                await socket.send(chunk)
            await socket.send('{"type":"stop"}')
            return error, await events_of(socket), socket.close_code

    opened = post(client, "/api/transcribe/start").json()
    client.delete(opened["id"])
    for id_ in (opened["id"], "job_nobody"):
        error, events, code = asyncio.run(go(id_))
        assert (error["code"], error["fatal"]) == ("job_not_found", False)
        assert not of("error", events), "the error comes once"
        assert words(events) and code == 1000


def test_the_older_file_route_hears_the_same_words(client: Client, talk: bytes) -> None:
    older = post(client, "/transcribe/file", files={"file": ("a.wav", wav(talk))}).json()
    assert older["words"] == post(client, "/v1/transcribe", content=wav(talk)).json()["words"]


def test_a_chunked_body_is_answered_while_it_comes(client: Client, talk: bytes) -> None:
    def body() -> Iterator[bytes]:
        for at in range(0, len(talk), 6400):
            yield talk[at : at + 6400]
            time.sleep(0.005)  # a client that sends as it records

    events = []
    with httpx.stream(
        "POST", f"{client.url}/transcribe/stream", content=body(), timeout=30
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
    assert len(of("final", events)) == 4 and events[-1]["type"] == "closed"
    address = client.url.removeprefix("http://")
    assert words(events) == words(converse(address, *chunks(talk))[0])
    for query in ("sample_rate=1", "encoding=mp3", "channels=9"):
        refused = post(client, f"/transcribe/stream?{query}", content=b"00")
        assert refused.status_code == 400, refused.text
    odd = post(client, "/transcribe/stream", content=b"000")
    assert "odd_byte_count" in odd.text and odd.text.rstrip().endswith("}")


def test_a_chunked_body_that_stalls_ends_with_its_session(talk: bytes) -> None:
    config = Config(profile="sim", limits={"idle_timeout_s": 1, "slow_body_s": 600})

    async def go(address: str) -> bytes:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /transcribe/stream HTTP/1.1\r\nHost: x\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(talk) + talk + b"\r\n")
        async with asyncio.timeout(15):
            answer = await reader.read()
        writer.close()
        return answer

    with served(config) as address:
        answer = asyncio.run(go(address)).decode()
        health = httpx.get(f"http://{address}/v1/health").json()
    events = [json.loads(it[6:]) for it in answer.splitlines() if it.startswith("data: ")]
    assert [it["code"] for it in of("error", events)] == ["idle_timeout"]
    assert len(of("final", events)) == 4 and events[-1]["type"] == "closed"
    assert health["active_sessions"] == 0


def test_health_ready_and_models(client: Client) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["engine"]) == ("healthy", "sim")
    assert isinstance(health["active_jobs"], int)
    assert client.get("/status").json().keys() == client.get("/v1/status").json().keys()
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.get("/models/status").json() == client.get("/v1/models/status").json()


def exchange(url: str, talk: bytes, send: Any) -> list[tuple[str, Any]]:
    """The events that a stock Socket.IO client receives."""

    async def go() -> list[tuple[str, Any]]:
        events: list[tuple[str, Any]] = []
        over = asyncio.Event()
        client = socketio.AsyncClient()
        for name in ("transcription:partial", "transcription:final", "transcription:end", "error"):

            def on(data: Any, name: str = name) -> None:
                events.append((name, data))
                if name == "transcription:end":
                    over.set()

            client.on(name, on)
        await client.connect(url, socketio_path="/socket")
        await send(client, talk)
        async with asyncio.timeout(20):
            await over.wait()
        await client.disconnect()
        return events

    return asyncio.run(go())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_socket_io_hears_partials_and_finals(client: Client, talk: bytes) -> None:
    async def as_bytes(socket: Any, talk: bytes) -> None:
        for at in range(0, len(talk), 3200):
            await socket.emit("audio:chunk", talk[at : at + 3200])
        await socket.emit("audio:stop")

    async def as_base64(socket: Any, talk: bytes) -> None:
        import base64

        await socket.emit("audio:start", {"sample_rate": 16_000, "language": "en"})
        for at in range(0, len(talk), 32_000):
            chunk = base64.b64encode(talk[at : at + 32_000]).decode()
            await socket.emit("audio:chunk", {"audio": chunk})
        await socket.emit("audio:stop")

    events = exchange(client.url, talk, as_bytes)
    finals = [data["text"] for name, data in events if name == "transcription:final"]
    assert len(finals) == 4 and any(name == "transcription:partial" for name, _ in events)
    assert " ".join(finals) == words(converse(client.url[7:], *chunks(talk))[0])
    again = exchange(client.url, talk, as_base64)
    assert [data["text"] for name, data in again if name == "transcription:final"] == finals


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_socket_io_says_what_is_wrong_and_goes_on(client: Client, talk: bytes) -> None:
    async def badly(socket: Any, talk: bytes) -> None:
        await socket.emit("audio:chunk", {"audio": "not base64!"})
        await socket.emit("audio:chunk", 7)
        await socket.emit("audio:chunk", b"odd")
        await socket.emit("audio:chunk", talk)
        await socket.emit("audio:stop")

    events = exchange(client.url, talk, badly)
    codes = [data["code"] for name, data in events if name == "error"]
    assert codes == ["invalid_base64", "invalid_message", "odd_byte_count"]
    assert [name for name, _ in events].count("transcription:final") == 4


def test_settings_change_for_new_sessions(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path)) as client:
        address = client.url.removeprefix("http://")
        assert len(of("final", converse(address, *chunks(talk))[0])) == 4
        answer = post(client, "/config/update", json={"vad": {"min_silence_ms": 1500}})
        assert answer.json() == {"vad": {"min_silence_ms": 1500}}
        assert len(of("final", converse(address, *chunks(talk))[0])) == 1
        more = post(client, "/config/update", json={"limits": {"max_sessions": 1}})
        assert more.json() == {"vad": {"min_silence_ms": 1500}, "limits": {"max_sessions": 1}}


def test_retry_after_changes_for_every_route(tmp_path: Path, talk: bytes) -> None:
    at = config(tmp_path, max_uploads=1, max_watchers=1)
    limits = at.limits.model_copy(update={"max_recordings": 1, "max_sessions": 1})
    there = models(transcriber=slow(1.5))
    with served(at.model_copy(update={"limits": limits}), there) as address:
        url = f"http://{address}"
        client = Client(address)
        job = client.submit(wav(talk)).json()["id"]
        post(client, "/config/update", json={"limits": {"retry_after_s": 17}})
        with httpx.stream("GET", f"{url}/v1/jobs/{job}/events", timeout=30) as watching:
            lines = watching.iter_lines()
            next(lines)
            refused = httpx.get(f"{url}/v1/jobs/{job}/events", timeout=30)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "17")
        with websocket(f"ws://{address}{PATH}") as first:
            first.recv()
            for path in (PATH, "/v1/realtime", "/ws"):
                with pytest.raises(InvalidStatus) as full, websocket(f"ws://{address}{path}"):
                    pass
                assert full.value.response.headers["retry-after"] == "17", path
        with ThreadPoolExecutor() as pool:
            sent = [pool.submit(post, client, "/v1/transcribe", content=wav(talk)) for _ in "123"]
            answers = [it.result() for it in sent]
        refused = next(it for it in answers if it.status_code == 503)
        assert refused.headers["retry-after"] == "17"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"limits": {"max_session_s": 5}}, "not_while_running"),
        ({"transcriber": {"engine": "voxtral"}}, "not_while_running"),
        ({"profile": "gpu"}, "invalid_message"),
        ({"limits": {"max_sessions": -1}}, "invalid_request"),
        ({"limits": {"max_sessions": "many"}}, "invalid_request"),
        ({"limits": {"surprise": 1}}, "not_while_running"),
        ([], "invalid_request"),
    ],
)
def test_settings_that_may_not_change_are_refused_with_reasons(
    client: Client, body: Any, code: str
) -> None:
    answer = post(client, "/config/update", json=body)
    assert 400 <= answer.status_code < 500 and code_of(answer) == code
    if code == "not_while_running":
        assert "max_sessions" in answer.json()["error"]["message"], "it says what may"


def test_finals_that_nobody_reads_end_the_stream_and_partials_are_replaced() -> None:
    unsent = _Unsent(3)
    for number in range(10):
        unsent.on_event(TranscriptUpdate(0, False, 0, number, ()))
    for number in range(2):
        unsent.on_event(TranscriptUpdate(number, True, 0, 1, ()))
    with pytest.raises(ReaderTooSlow):
        unsent.on_event(TranscriptUpdate(2, True, 0, 1, ()))

    async def go() -> None:
        unsent.on_abandoned("client_too_slow")
        *events, error = [it async for it in unsent.events()]
        assert [(it.final, it.until) for it in events] == [(False, 9), (True, 1), (True, 1)]
        assert error.code == "client_too_slow"

    asyncio.run(go())
