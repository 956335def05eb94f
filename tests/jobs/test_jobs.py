"""Jobs as a client sees them: the application and a worker in this process, real stores."""

import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from deployments.interfaces import RATE
from loadtest.speech import wav
from serve_app.config import Config
from serve_app.jobs import worker
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.job import STEP_SHARES, Job, JobState
from serve_app.jobs.queue import Queue
from serve_app.jobs.recogniser import Recogniser
from tests.api.test_application import encoded
from tests.fakes import FakeTranscriber, LocalReplicaSet, served, sim_transcriber, working
from tests.waiting import until, wait_for

ENDED = ("completed", "failed", "cancelled")


def config(folder: Path, **jobs: Any) -> Config:
    given = {"poll_s": 0.05, "retry_backoff_s": 0.05, **jobs}
    return Config.model_validate(
        {"profile": "sim", "storage": {"directory": str(folder)}, "jobs": given}
    )


class Client:
    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def submit(self, body: bytes, name: str = "talk.wav", **options: Any) -> httpx.Response:
        headers = options.pop("headers", {})
        return httpx.post(
            f"{self.url}/v1/jobs",
            files={"file": (name, body)},
            data=options,
            headers=headers,
            timeout=60,
        )

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30, **options)

    def job(self, id_: str) -> dict[str, Any]:
        job: dict[str, Any] = self.get(f"/v1/jobs/{id_}").json()
        return job

    def until(self, id_: str, *states: str, seconds: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (job := self.job(id_))["state"] not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.03)
        return job

    def done(self, body: bytes, **options: Any) -> dict[str, Any]:
        """The result of a job that is completed."""
        answer = self.submit(body, **options)
        assert answer.status_code == 202, answer.text
        job = self.until(answer.json()["id"], *ENDED, seconds=120)
        assert job["state"] == "completed", job
        result: dict[str, Any] = self.get(f"/v1/jobs/{job['id']}/results").json()
        return result

    def delete(self, id_: str) -> httpx.Response:
        return httpx.delete(f"{self.url}/v1/jobs/{id_}", timeout=30)


@contextmanager
def running(at: Config, **given: Any) -> Iterator[Client]:
    with served(at) as address, working(at, **given):
        yield Client(address)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running(config(tmp_path_factory.mktemp("jobs"))) as client:
        yield client


@contextmanager
def without_worker(folder: Path, **jobs: Any) -> Iterator[Client]:
    with served(config(folder, **jobs)) as address:
        yield Client(address)


def traces(folder: Path, id_: str) -> list[str]:
    """Folders of a job, while others delete them."""
    return [place for place, _, _ in os.walk(folder) if id_ in place]


def slow(seconds: float = 1.0) -> LocalReplicaSet:
    return LocalReplicaSet(sim=sim_transcriber(latency_ms=seconds * 1000))


def code_of(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def long(talk: bytes, seconds: float) -> bytes:
    times = int(seconds * 2 * RATE / len(talk)) + 1
    return (talk * times)[: int(seconds * RATE) * 2]


def test_a_recording_comes_to_words_speakers_and_turns(client: Client, talk: bytes) -> None:
    answer = client.submit(wav(talk * 2), speakers="2")
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["file"]["name"]) == ("queued", "talk.wav")
    done = client.until(job["id"], *ENDED)
    assert (done["state"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["file"]["duration_s"] == pytest.approx(len(talk) / RATE, abs=0.01)
    result = client.get(f"/v1/jobs/{job['id']}/results").json()
    assert result["full_text"] == " ".join(word["word"] for word in result["words"])
    assert result["full_text"] == " ".join(it["text"] for it in result["segments"])
    assert result["full_text"] == " ".join(it["text"] for it in result["aligned_segments"])
    starts = [word["start_ms"] for word in result["words"]]
    assert starts == sorted(starts) and result["duration_ms"] == len(talk * 2) // 32
    assert {turn["speaker"] for turn in result["speaker_turns"]} == {"A", "B"}
    assert {it["speaker"] for it in result["aligned_segments"]} == {"A", "B"}
    assert result["engines"] == {"transcriber": "sim", "diarizer": "sim"}
    assert all(0 < word["confidence"] <= 1 for word in result["words"])
    metrics = result["performance_metrics"]
    assert {
        "prepare_s",
        "windows_s",
        "transcribe_s",
        "diarize_s",
        "align_s",
    } <= set(metrics)


def test_every_step_is_written_down_as_it_begins(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when progress is written next: here that is never. The stages wait until somebody
    can read that they have begun."""
    steps: list[str] = []
    renew, transcribe, turns = Queue.renew, Recogniser.transcribe, Diarization.turns

    async def noted(queue: Queue, job: Job, **changes: Any) -> JobState:
        state = await renew(queue, job, **changes)
        steps.append(changes["step"])
        return state

    async def told(step: str) -> None:
        await until(lambda: step in steps)

    async def transcribed(*args: Any) -> Any:
        await told("transcribe")
        return await transcribe(*args)

    async def diarized(*args: Any) -> Any:
        found = await turns(*args)
        await told("diarize")
        return found

    monkeypatch.setattr(worker, "PROGRESS_S", 1000.0)
    monkeypatch.setattr(Queue, "renew", noted)
    monkeypatch.setattr(Recogniser, "transcribe", transcribed)
    monkeypatch.setattr(Diarization, "turns", diarized)
    with running(config(tmp_path, lease_s=3600)) as client:
        client.done(wav(talk))
    assert steps[:3] == list(STEP_SHARES)[:3] and steps[3:] in ([], ["align"])


def test_progress_and_partials_are_streamed(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path), transcriber=slow(0.4)) as client:
        id_ = client.submit(wav(long(talk, 120))).json()["id"]
        events = []
        with httpx.stream("GET", f"{client.url}/v1/jobs/{id_}/events", timeout=60) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]))
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "completed" and "progress" in kinds and "partial" in kinds
    progress = [event["job"]["progress"] for event in events if "job" in event]
    assert progress == sorted(progress) and progress[-1] == 100
    partials = [event for event in events if event["type"] == "partial"]
    assert [it["window"] for it in partials] == list(range(len(partials))) and partials[0]["text"]


def test_results_are_202_while_they_are_not_there(tmp_path: Path, talk: bytes) -> None:
    with without_worker(tmp_path) as client:
        first = client.submit(wav(talk)).json()
        job = client.submit(wav(talk)).json()
        assert (first["queue_position"], job["queue_position"]) == (1, 2)
        for path in ("results", "export/srt"):
            answer = client.get(f"/v1/jobs/{job['id']}/{path}")
            assert answer.status_code == 202 and answer.json()["state"] == "queued"


@pytest.mark.parametrize("form", ["txt", "srt", "vtt", "json", "tsv", "docx"])
def test_a_result_is_exported_in_every_format(client: Client, talk: bytes, form: str) -> None:
    result = client.done(wav(talk), name="Jö/talk.x.wav")
    answer = client.get(f"/v1/jobs/{result['id']}/export/{form}")
    assert answer.status_code == 200 and f".{form}" in answer.headers["content-disposition"]
    first = result["words"][0]["word"]
    if form == "docx":
        from docx import Document

        text = "\n".join(it.text for it in Document(io.BytesIO(answer.content)).paragraphs)
        assert first in text and "A: " in text
    elif form == "json":
        assert answer.json()["words"] == result["words"]
    else:
        assert first in answer.text and answer.text.startswith(BEGINS[form])


BEGINS = {
    "srt": "1\n00:00:0",
    "vtt": "WEBVTT\n",
    "tsv": "start\tend\tspeaker\ttext\n",
    "txt": "A: ",
}


def test_unknown_exports_and_jobs(client: Client, talk: bytes) -> None:
    id_ = client.done(wav(talk))["id"]
    answer = client.get(f"/v1/jobs/{id_}/export/pdf")
    assert (answer.status_code, code_of(answer)) == (400, "unknown_format")
    for path in ("", "/results", "/events", "/audio", "/export/txt"):
        answer = client.get(f"/v1/jobs/job_nothing{path}")
        assert (answer.status_code, code_of(answer)) == (404, "job_not_found")


def test_the_audio_comes_back_in_ranges(client: Client, talk: bytes) -> None:
    body = wav(talk)
    path = f"/v1/jobs/{client.submit(body).json()['id']}/audio?original=true"
    whole = client.get(path)
    assert whole.content == body and whole.headers["content-type"] == "audio/wav"
    for asked, start, end in (
        ("0-9", 0, 10),
        ("100-", 100, len(body)),
        ("-5", len(body) - 5, len(body)),
    ):
        part = client.get(path, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206 and part.content == body[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(body)}"
    for asked in (f"{len(body)}-", "9-3", "-0"):
        answer = client.get(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, code_of(answer)) == (416, "range_not_satisfiable")
    assert client.get(path, headers={"Range": "bytes=0-1,5-6"}).content == body


def test_the_same_samples_are_answered_from_the_cache_in_any_lossless_format(
    client: Client, talk: bytes
) -> None:
    unheard = np.frombuffer(talk, np.int16)[::-1].tobytes()
    first = client.done(wav(unheard))
    again = client.done(wav(unheard), name="other.wav")
    assert not first["cached"] and again["cached"] and again["words"] == first["words"]
    assert not client.done(wav(unheard), speakers="1")["cached"], "other options, another result"
    flac = io.BytesIO()
    import soundfile

    soundfile.write(flac, np.frombuffer(unheard, np.int16), RATE, format="FLAC")
    assert client.done(flac.getvalue(), name="a.flac")["cached"]
    mp3 = encoded(unheard, "mp3", "mp3")
    assert not client.done(mp3, name="a.mp3")["cached"], "lossy: other samples"
    assert client.done(mp3, name="b.mp3")["cached"]
    for id_ in (first["id"], again["id"]):
        client.delete(id_)


def test_an_idempotency_key_gives_the_same_job(client: Client, talk: bytes) -> None:
    key = {"Idempotency-Key": "once"}
    first = client.submit(wav(talk), headers=key).json()
    client.until(first["id"], *ENDED)
    again = client.submit(wav(talk), headers=key)
    assert again.status_code == 200 and again.json()["id"] == first["id"]
    by_field = client.submit(wav(talk), idempotency_key="once")
    assert by_field.json()["id"] == first["id"]
    other = client.submit(wav(talk), headers=key, language="de")
    assert (other.status_code, code_of(other)) == (409, "idempotency_conflict")
    refused = client.submit(wav(talk), headers={"Idempotency-Key": "x" * 300})
    assert (refused.status_code, code_of(refused)) == (400, "invalid_request")


def test_jobs_are_listed(tmp_path: Path, talk: bytes) -> None:
    with without_worker(tmp_path) as client:
        ids = [client.submit(wav(talk)).json()["id"] for _ in range(3)]
        page = client.get("/v1/jobs", params={"limit": 2}).json()
        assert [job["id"] for job in page["data"]] == ids[:0:-1] and page["has_more"]
        rest = client.get("/v1/jobs", params={"after": ids[1]}).json()
        assert [job["id"] for job in rest["data"]] == ids[:1] and not rest["has_more"]
        assert client.get("/v1/jobs", params={"state": "running"}).json()["data"] == []
        assert client.get("/v1/jobs", params={"state": "nonsense"}).status_code == 400


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"content": b"x"}, 415, "unsupported_body"),
    ({"json": {"file": "x"}}, 415, "unsupported_body"),
    ({"files": {"file": ("a.wav", b"")}}, 400, "empty_upload"),
    ({"files": {"other": ("a.wav", b"RIFF")}}, 400, "empty_upload"),
    ({"files": {"file": ("a.txt", b"just some text, nothing else")}}, 400, "unsupported_media"),
    ({"files": {"file": ("a.wav", b"PK\x03\x04" + bytes(100))}}, 400, "unsupported_media"),
    (
        {"files": {"file": ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/x\n")}},
        400,
        "unsupported_media",
    ),
    ({"data": {"speakers": "many"}}, 400, "invalid_request"),
    ({"data": {"speakers": "0"}}, 400, "invalid_request"),
    ({"data": {"min_speakers": "3", "max_speakers": "2"}}, 400, "invalid_request"),
    ({"data": {"speakers": "2", "max_speakers": "2"}}, 400, "invalid_request"),
    ({"data": {"state": "completed"}}, 400, "invalid_request"),
    ({"data": {"tenant": "other"}}, 400, "invalid_request"),
    ({"data": {"hotwords": ["w"] * 101}}, 400, "invalid_request"),
    ({"data": {"language": "x" * 70_000}}, 400, "invalid_request"),
    ({"data": {"webhook": "ftp://example.com"}}, 400, "webhook_refused"),
    ({"data": {"webhook": "http://127.0.0.1/"}}, 400, "webhook_refused"),
    ({"data": {"webhook": "http://[::1]/"}}, 400, "webhook_refused"),
    ({"data": {"webhook": "https://user@example.com/"}}, 400, "webhook_refused"),
    ({"data": {"webhook": "https://example.com/"}}, 400, "webhook_refused"),
]


@pytest.mark.parametrize(("request_", "status", "code"), BAD)
def test_bad_submissions_say_what_is_wrong_and_leave_nothing(
    client: Client, talk: bytes, request_: dict[str, Any], status: int, code: str
) -> None:
    if "data" in request_:
        request_ = {"files": {"file": ("a.wav", wav(talk))}, **request_}
    before = client.get("/v1/jobs").json()["data"][:1]
    answer = httpx.post(f"{client.url}/v1/jobs", timeout=30, **request_)
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    assert client.get("/v1/jobs").json()["data"][:1] == before


def test_a_form_may_have_its_fields_after_the_file(client: Client, talk: bytes) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + wav(talk)
        + b'\r\n--x\r\nContent-Disposition: form-data; name="speakers"\r\n\r\n3\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{client.url}/v1/jobs", content=body, headers=headers, timeout=30)
    assert answer.json()["options"]["speakers"] == 3
    for broken in (body[:-20], b"--x\r\n", b"no form at all", b"--x\r\n" + b"A" * 20_000):
        answer = httpx.post(f"{client.url}/v1/jobs", content=broken, headers=headers, timeout=30)
        assert answer.status_code == 400, answer.text


def test_an_upload_is_bounded(tmp_path: Path, talk: bytes) -> None:
    with without_worker(tmp_path, max_upload_bytes=100_000) as client:
        answer = client.submit(wav(talk))
        assert (answer.status_code, code_of(answer)) == (413, "upload_too_large")

        def chunked() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
            for _ in range(100):
                yield wav(talk)

        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = httpx.post(f"{client.url}/v1/jobs", content=chunked(), headers=headers, timeout=30)
        assert (answer.status_code, code_of(answer)) == (413, "upload_too_large")
    assert not [it for it in tmp_path.rglob("*") if it.name == "audio"]


def test_what_no_job_has_is_swept_and_nobody_elses_files(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path)) as client:
        id_ = client.done(wav(talk))["id"]
    (objects,) = [it.parent.parent.parent for it in tmp_path.rglob(f"{id_}/audio")]
    broken_off = objects / "default" / f"job_{'0' * 32}" / "audio"
    killed = objects / "default" / f"job_{'1' * 32}" / "audio#1"
    others = [objects / "notes", objects / "backups" / "monday", objects / "a" / "job_1" / "x"]
    for file in (broken_off, killed, *others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"?")
    for file in objects.rglob("*"):
        os.utime(file, (0, 0))
    with running(config(tmp_path)) as client:
        wait_for(lambda: not broken_off.exists() and not killed.parent.exists())
        assert all(file.exists() for file in others)
        assert client.get(f"/v1/jobs/{id_}/audio?original=true").content == wav(talk)


def slow_upload(url: str, path: str, drips: bool) -> bytes:
    """What is answered to a body that stops half way, or goes on a few bytes at a time."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(
            f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n".encode()
            + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            + head
            + wav(bytes(3_000_000))[:2_500_000]
        )
        for _ in range(10 if drips else 0):
            time.sleep(0.03)  # a client that is slow
            slow.sendall(bytes(10))
        return slow.recv(4000)


@pytest.mark.parametrize("drips", [False, True])
def test_an_upload_that_does_not_arrive_in_time_is_given_up(tmp_path: Path, drips: bool) -> None:
    at = config(tmp_path, upload_timeout_s=0.5)
    limits = at.limits.model_copy(update={"upload_timeout_s": 0.5})
    with served(at.model_copy(update={"limits": limits})) as address:
        for path in ("/v1/jobs", "/v1/transcribe"):
            answer = slow_upload(f"http://{address}", path, drips)
            assert answer.startswith(b"HTTP/1.1 408") and b"idle_timeout" in answer
    assert not [it for it in tmp_path.rglob("*") if it.name.startswith("audio")]


def test_a_large_upload_is_never_whole_in_memory(tmp_path: Path) -> None:
    import psutil

    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    piece = bytes(1 << 20)

    def body() -> Iterator[bytes]:
        yield head + wav(b"")[:44]
        for _ in range(300):
            yield piece
        yield b"\r\n--x--\r\n"

    with without_worker(tmp_path) as client:
        process, highest, over = psutil.Process(), 0, threading.Event()

        def watch() -> None:
            nonlocal highest
            while not over.wait(0.02):
                highest = max(highest, process.memory_info().rss)

        before = process.memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = httpx.post(f"{client.url}/v1/jobs", content=body(), headers=headers, timeout=60)
        over.set()
        watcher.join()
    assert answer.status_code == 202 and answer.json()["file"]["bytes"] == 300 * (1 << 20) + 44
    assert highest - before < 150 << 20


def test_deleting_an_ended_job_forgets_it_and_its_files(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path)) as client:
        id_ = client.done(wav(talk))["id"]
        assert traces(tmp_path, id_)
        assert client.delete(id_).status_code == 204
        assert client.get(f"/v1/jobs/{id_}").status_code == 404 == client.delete(id_).status_code
        assert not traces(tmp_path, id_)


def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path, talk: bytes) -> None:
    with without_worker(tmp_path) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        answer = client.delete(id_)
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        refused = client.get(f"/v1/jobs/{id_}/results")
        assert (refused.status_code, code_of(refused)) == (409, "job_not_completed")
        assert code_of(client.get(f"/v1/jobs/{id_}/audio?original=true")) == "not_found"
        assert client.delete(id_).status_code == 204


@pytest.mark.parametrize("heard", [0, 1], ids=["as it begins", "while the engine listens"])
def test_a_running_job_is_cancelled_at_any_time(tmp_path: Path, talk: bytes, heard: int) -> None:
    mute = FakeTranscriber(mute=True)
    with running(config(tmp_path), transcriber=LocalReplicaSet(mute=mute)) as client:
        id_ = client.submit(wav(long(talk, 90))).json()["id"]
        client.until(id_, "running")
        wait_for(lambda: len(mute.heard) >= heard)
        answer = client.delete(id_)
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
        client.until(id_, "cancelled", seconds=5)
        wait_for(lambda: not traces(tmp_path, id_), 30)
        wait_for(lambda: len(mute.left) >= len(mute.heard), 30)


def test_an_engine_that_fails_for_a_while_is_asked_again(tmp_path: Path, talk: bytes) -> None:
    failing = sim_transcriber(error_rate=1.0)

    def mend() -> None:
        failing._engine._error_rate = 0.0  # type: ignore[attr-defined]

    with running(config(tmp_path), transcriber=LocalReplicaSet(sim=failing)) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        threading.Timer(1.5, mend).start()
        assert client.until(id_, *ENDED)["state"] == "completed"


def test_an_engine_that_always_fails_fails_the_job_with_a_reason(
    tmp_path: Path, talk: bytes
) -> None:
    failing = LocalReplicaSet(sim=sim_transcriber(error_rate=1.0))
    with running(config(tmp_path, max_attempts=2), transcriber=failing) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        job = client.until(id_, *ENDED)
        assert (job["state"], job["error"]["code"]) == ("failed", "utterance_failed")
        assert client.get(f"/v1/jobs/{id_}/results").status_code == 409


def test_what_cannot_pass_is_not_tried_again(client: Client) -> None:
    id_ = client.submit(b"RIFF\x24\x00\x00\x00WAVEfmt garbage garbage garbage garbage").json()["id"]
    job = client.until(id_, *ENDED)
    assert (job["state"], job["error"]["code"]) == ("failed", "unreadable_audio")


def test_a_recording_that_is_too_long_fails_plainly(tmp_path: Path) -> None:
    with running(config(tmp_path, max_audio_s=5)) as client:
        id_ = client.submit(wav(bytes(32_000 * 60))).json()["id"]
        assert client.until(id_, *ENDED)["error"]["code"] == "recording_too_long"


def tones(seconds: int) -> bytes:
    """Chords: music, to a recogniser that cannot tell."""
    at = np.arange(seconds * RATE) / RATE
    out = np.zeros(len(at))
    rng = np.random.default_rng(3)
    for second in range(seconds):
        here = slice(second * RATE, (second + 1) * RATE)
        for hz in rng.choice([220, 262, 330, 392, 440, 523], 3):
            out[here] += sum(np.sin(2 * np.pi * hz * k * at[here]) / k for k in range(1, 8))
    samples: bytes = (out * 2000).astype(np.int16).tobytes()
    return samples


def test_silence_and_music_yield_no_words(client: Client) -> None:
    silent = client.done(wav(bytes(RATE * 2 * 20)))
    assert (
        silent["words"] == []
        and silent["full_text"] == ""
        and "little_speech" in silent["warnings"]
    )
    assert silent["duration_ms"] == 20_000 and silent["speaker_turns"] == []
    music = client.done(wav(tones(20)))
    assert music["words"] == [] and "music" in music["warnings"]


def test_channels_may_be_speakers(client: Client, talk: bytes) -> None:
    one = np.frombuffer(talk, np.int16)
    other = np.concatenate([np.zeros(len(one), np.int16), one])
    both = np.stack([np.concatenate([one, np.zeros(len(one), np.int16)]), other], axis=1)
    result = client.done(wav(both.tobytes(), channels=2), channels="speakers")
    by_speaker = {"A": [], "B": []}  # type: dict[str, list[int]]
    for word in result["words"]:
        by_speaker[word["speaker"]].append(word["start_ms"])
    border = len(talk) // 32
    assert by_speaker["A"] and max(by_speaker["A"]) < border <= min(by_speaker["B"]) + 400
    assert next(turn["speaker"] for turn in result["speaker_turns"]) == "A"
    mixed = client.done(wav(both.tobytes(), channels=2), diarize="false")
    assert mixed["speaker_turns"] == [] and mixed["words"][0]["speaker"] is None
    assert mixed["engines"]["diarizer"] is None


def test_clipped_and_faint_recordings_come_with_a_warning(client: Client, talk: bytes) -> None:
    loud = np.clip(np.frombuffer(talk, np.int16).astype(np.int32) * 40, -32768, 32767)
    assert "clipping" in client.done(wav(loud.astype(np.int16).tobytes()))["warnings"]
    faint = (np.frombuffer(talk, np.int16) // 200).astype(np.int16)
    assert "low_level" in client.done(wav(faint.tobytes()))["warnings"]
    clean = client.done(wav(talk))
    assert clean["quality"]["snr_db"] > 20 and "noisy" not in clean["warnings"]


def test_words_may_be_left_out(client: Client, talk: bytes) -> None:
    result = client.done(wav(talk), words="false")
    assert result["words"] == [] and result["full_text"] and result["segments"]


def test_noise_is_taken_away_when_asked(client: Client, talk: bytes) -> None:
    noisy = np.frombuffer(talk, np.int16) + np.random.default_rng(0).normal(0, 300, len(talk) // 2)
    body = wav(noisy.astype(np.int16).tobytes())
    as_it_is, cleaned = client.done(body), client.done(body, denoise="true")
    assert as_it_is["duration_ms"] == cleaned["duration_ms"]
    assert as_it_is["full_text"] != cleaned["full_text"], "the sim hears other samples"


def test_full_disks_are_a_507(tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve_app.jobs import objects

    with without_worker(tmp_path) as client:
        monkeypatch.setattr(objects, "SPARE_BYTES", 1 << 60)
        answer = client.submit(wav(talk))
        assert (answer.status_code, code_of(answer)) == (507, "storage_full")


def test_openapi_describes_the_options(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    schema = paths["/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "speakers", "webhook", "idempotency_key"} <= set(schema["properties"])
