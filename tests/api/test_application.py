"""REST through TestClient, with models in this process."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from loadtest.speech import wav
from serve_app.api import create_app
from serve_app.config import Config, JobsConfig, Limits
from tests.fakes import FakeTranscriber, LocalReplicaSet, models, not_measured, sim_transcriber


def client_of(given: Any = None, **limits: Any) -> TestClient:
    config = Config(profile="sim", limits=Limits(**limits))
    return TestClient(
        create_app(given or models(), not_measured(config)), raise_server_exceptions=False
    )


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of() as client:
        yield client


def code_of(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return str(error["code"])


def ready(client: TestClient) -> None:
    while client.get("/v1/ready").status_code != 200:
        continue


def test_a_recording_is_transcribed(client: TestClient, talk: bytes) -> None:
    answer = client.post("/v1/transcribe", content=wav(talk)).json()
    assert answer["engine"] == "sim" and answer["duration_ms"] == len(talk) // 32
    assert answer["text"] == " ".join(word["word"] for word in answer["words"])
    assert answer["text"] == " ".join(segment["text"] for segment in answer["segments"])
    assert len(answer["segments"]) > 1
    starts = [word["start_ms"] for word in answer["words"]]
    assert starts == sorted(starts) and answer["processing_ms"] > 0


def test_multipart_and_a_raw_body_get_the_same_answer(client: TestClient, talk: bytes) -> None:
    raw = client.post("/v1/transcribe", content=wav(talk)).json()
    form = client.post("/v1/transcribe", files={"file": ("talk.wav", wav(talk))}).json()
    assert form["words"] == raw["words"]


@pytest.mark.parametrize(
    ("form", "begins", "media"),
    [
        ("txt", "", "text/plain"),
        ("srt", "1\n00:00:0", "application/x-subrip"),
        ("vtt", "WEBVTT\n\n00:00:0", "text/vtt"),
    ],
)
def test_a_transcript_comes_in_each_form(
    client: TestClient, talk: bytes, form: str, begins: str, media: str
) -> None:
    answer = client.post("/v1/transcribe", params={"format": form}, content=wav(talk))
    assert answer.text.startswith(begins) and answer.headers["content-type"].startswith(media)


def test_a_recording_of_silence_has_no_words(client: TestClient) -> None:
    answer = client.post("/v1/transcribe", content=wav(bytes(96_000))).json()
    assert answer["text"] == "" and answer["words"] == [] and answer["duration_ms"] == 3000


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b""}, 400, "unreadable_audio"),
        ({"content": b"not audio at all"}, 400, "unreadable_audio"),
        ({"content": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n"}, 400, "unreadable_audio"),
        ({"content": b"ffconcat version 1.0\nfile /etc/passwd\n"}, 400, "unreadable_audio"),
        ({"files": {"other": b"x"}}, 400, "invalid_request"),
        ({"files": {"file": b"x"}, "data": {"surprise": "1"}}, 400, "invalid_request"),
        ({"content": b"x", "params": {"format": "pdf"}}, 400, "invalid_request"),
        ({"content": b"x", "params": {"surprise": "1"}}, 400, "invalid_request"),
        ({"content": b"x", "params": {"hotwords": ["a"] * 101}}, 400, "too_many_hotwords"),
        ({"content": b"x", "params": {"grammar": "x" * 20_000}}, 413, "grammar_too_large"),
    ],
)
def test_a_bad_request_has_its_status_and_code(
    client: TestClient, request_: Any, status: int, code: str
) -> None:
    answer = client.post("/v1/transcribe", **request_)
    assert (answer.status_code, code_of(answer)) == (status, code)


def test_unknown_paths_and_methods_answer_in_the_same_shape(client: TestClient) -> None:
    assert code_of(client.get("/v1/nothing")) == "not_found"
    wrong = client.delete("/v1/health")
    assert wrong.status_code == 405 and code_of(wrong) == "method_not_allowed"


def test_an_engine_knows_its_languages(talk: bytes) -> None:
    with client_of(models(languages=("en",))) as client:
        answer = client.post("/v1/transcribe?language=fr", content=wav(talk))
        assert code_of(answer) == "unsupported_language"
        assert client.post("/v1/transcribe?language=en-GB", content=wav(talk)).status_code == 200


def test_an_upload_is_bounded(talk: bytes) -> None:
    with client_of(max_upload_bytes=10_000) as client:
        for request in ({"content": wav(talk)}, {"files": {"file": wav(talk)}}):
            answer = client.post("/v1/transcribe", **request)
            assert (answer.status_code, code_of(answer)) == (413, "upload_too_large")


def test_a_recording_is_bounded_in_seconds_while_it_decodes() -> None:
    with client_of(max_recording_s=5) as client:
        answer = client.post("/v1/transcribe", content=wav(bytes(32_000 * 600)))
        assert (answer.status_code, code_of(answer)) == (413, "recording_too_long")


def test_a_failed_engine_is_an_error_not_a_gap(talk: bytes) -> None:
    failing = models(transcriber=LocalReplicaSet(one=sim_transcriber(error_rate=1.0)))
    with client_of(failing) as client:
        answer = client.post("/v1/transcribe", content=wav(talk))
        assert (answer.status_code, code_of(answer)) == (500, "utterance_failed")
        assert client.get("/v1/health").json()["active_sessions"] == 0


def test_an_engine_that_says_nothing_times_out(talk: bytes) -> None:
    mute = models(transcriber=LocalReplicaSet(one=FakeTranscriber(mute=True)))
    config = Config(profile="sim", jobs=JobsConfig(window_timeout_s=1))
    with TestClient(create_app(mute, not_measured(config))) as client:
        assert code_of(client.post("/v1/transcribe", content=wav(talk))) == "engine_timeout"


def test_recordings_beyond_the_limit_are_refused_with_a_time_to_come_back(talk: bytes) -> None:
    from concurrent.futures import ThreadPoolExecutor

    slow = models(transcriber=LocalReplicaSet(one=sim_transcriber(latency_ms=1500)))
    with client_of(slow, max_recordings=1) as client, ThreadPoolExecutor() as pool:
        ready(client)
        answers = list(
            pool.map(lambda _: client.post("/v1/transcribe", content=wav(talk)), range(3))
        )
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused and code_of(refused[0]) == "too_many_recordings"
    assert refused[0].headers["Retry-After"] == "5"
    assert any(answer.status_code == 200 for answer in answers)


def test_health_ready_and_metrics(talk: bytes) -> None:
    with client_of() as client:
        ready(client)
        client.post("/v1/transcribe", content=wav(talk))
        client.get("/v1/nothing")
        health = client.get("/v1/health").json()
        assert health["status"] == "healthy" and health["engine"] == "sim"
        assert health["active_jobs"] == 0
        metrics = client.get("/v1/metrics").json()
    assert metrics["errors"]["not_found"] == 1
    assert metrics["p50_latency_ms"] > 0 and metrics["requests_per_second"] > 0
    assert metrics["live"]["utterances"] == 1


def test_not_ready_without_models() -> None:
    with client_of(models(vad=LocalReplicaSet())) as client:
        answer = client.get("/v1/ready")
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"


def test_openapi_names_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    older = {path for path in paths if path.startswith("/api/")}
    assert len(older) == 10
    assert set(paths) - older == {
        "/config/update",
        "/transcribe/stream",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/audio",
        "/v1/jobs/{id}/events",
        "/v1/jobs/{id}/export/{form}",
        "/v1/jobs/{id}/peaks",
        "/v1/jobs/{id}/result",
        "/v1/jobs/{id}/results",
        "/v1/jobs/{id}/revisions",
        "/v1/jobs/events",
        "/v1/keys",
        "/v1/keys/{id}",
        "/v1/metrics/history",
        "/v1/sign_in",
        "/v1/uploads",
        "/v1/uploads/{id}",
        "/v1/webhooks",
        "/v1/webhooks/{id}/retry",
        "/speech-to-speech/metrics",
        "/speech-to-speech/performance",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/voices",
        "/v1/chat/completions",
        "/v1/health",
        "/v1/metrics",
        "/v1/models",
        "/v1/models/status",
        "/v1/models/{model}",
        "/v1/ready",
        "/v1/status",
        "/v1/tenants/{id}/data",
        "/v1/realtime/client_secrets",
        "/v1/transcribe",
        "/v1/usage",
    }
    assert client.get("/docs").status_code == 200


FORMATS = {
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "mp3"),
    "ogg": ("ogg", "libopus"),
    "webm": ("webm", "libopus"),
    "m4a": ("ipod", "aac"),
}


def encoded(pcm: bytes, container: str, codec: str) -> bytes:
    """The speech in another format, by FFmpeg."""
    import av
    import numpy as np

    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=48_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None, :], "s16", "mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48_000)
        fifo = av.AudioFifo()
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(piece)
        size = stream.codec_context.frame_size or 4096
        while fifo.samples:
            file.mux(stream.encode(fifo.read(size, partial=True)))
        file.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_every_common_format_is_transcribed(client: TestClient, talk: bytes, name: str) -> None:
    answer = client.post("/v1/transcribe", content=encoded(talk, *FORMATS[name])).json()
    assert answer["duration_ms"] == pytest.approx(len(talk) // 32, abs=150)
    assert len(answer["words"]) == pytest.approx(len(talk) / 32_000 * 2.5, abs=3)


def test_no_file_of_an_upload_stays_behind(
    client: TestClient, talk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_ns = tmp_path.stat().st_mtime_ns
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert client.post("/v1/transcribe", content=wav(talk)).status_code == 200
    assert tmp_path.stat().st_mtime_ns > made_ns and not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/v1/transcribe/stream", "/v1/realtime", "/ws"])
def test_a_plain_get_of_a_sockets_path_gets_426(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 426 and code_of(answer) == "upgrade_required"
    assert answer.headers["upgrade"] == "websocket"
    assert client.post(path).headers["allow"] == "GET, HEAD, OPTIONS"


def test_unknown_parameters_of_a_streamed_body_are_refused(client: TestClient) -> None:
    answer = client.post("/transcribe/stream?vad=off", content=b"")
    assert answer.status_code == 400 and code_of(answer) == "invalid_request"
    assert answer.json()["error"]["param"] == "vad"


def test_a_body_without_its_content_type_is_refused_with_the_right_one() -> None:
    with client_of() as client:
        answer = client.post("/v1/audio/speech", content=b'{"input": "hi", "voice": "alloy"}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]
