"""The playback copy of a recording, and its peaks."""

import io
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from deployments.interfaces import RATE
from loadtest.speech import wav
from serve_app.config import Config
from serve_app.jobs.peaks import MOST, Peaks, folded
from serve_app.jobs.playback import HEADER_BYTES
from tests.identity.keys import bearer, with_keys
from tests.jobs.test_jobs import ENDED, Client, code_of, config, long, running, without_worker


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running(config(tmp_path_factory.mktemp("jobs"))) as client:
        yield client


@pytest.fixture(scope="module")
def sound(talk: bytes) -> bytes:
    """More than two blocks of ten seconds."""
    return long(talk, 25.3)


@pytest.fixture(scope="module")
def path(client: Client, sound: bytes) -> str:
    id_ = client.submit(wav(sound)).json()["id"]
    assert client.until(id_, *ENDED)["state"] == "completed"
    return f"/v1/jobs/{id_}"


def get(client: Client, path: str, part: str = "") -> httpx.Response:
    headers = {"Range": f"bytes={part}"} if part else {}
    return httpx.get(f"{client.url}{path}", headers=headers, timeout=60)


def test_it_is_a_wav_of_the_same_samples(client: Client, path: str, sound: bytes) -> None:
    answer = get(client, f"{path}/audio")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.headers["accept-ranges"] == "bytes" and answer.headers["etag"]
    assert "content-disposition" not in answer.headers
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert file.readframes(file.getnframes()) == sound


@pytest.mark.parametrize(
    "part", ["0-0", "0-99", "43-44", "44-45", "100-319999", "320043-320046", "640000-", "-7"]
)
def test_any_part_of_it_can_be_read(client: Client, path: str, part: str, sound: bytes) -> None:
    whole = get(client, f"{path}/audio").content
    answer = get(client, f"{path}/audio", part)
    first, _, last = part.partition("-")
    start = int(first) if first else len(whole) - int(last)
    end = int(last) + 1 if first and last else len(whole)
    assert answer.status_code == 206 and answer.content == whole[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"


def test_a_part_outside_of_it_is_refused(client: Client, path: str) -> None:
    assert get(client, f"{path}/audio", "99999999-").status_code == 416


def test_the_upload_is_still_there(client: Client, path: str, sound: bytes) -> None:
    answer = get(client, f"{path}/audio?original=true")
    assert answer.content == wav(sound) and "attachment" in answer.headers["content-disposition"]


def test_channels_are_mixed(client: Client, sound: bytes) -> None:
    left = np.frombuffer(sound, np.int16)
    both = np.stack([left, np.zeros_like(left)], axis=1)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(both.tobytes())
    id_ = client.submit(file.getvalue(), channels="speakers").json()["id"]
    assert client.until(id_, *ENDED)["state"] == "completed"
    copy = np.frombuffer(get(client, f"/v1/jobs/{id_}/audio").content[HEADER_BYTES:], np.int16)
    assert np.abs(copy - left / 2).max() <= 1


def test_peaks_show_where_it_is_loud(client: Client, path: str, sound: bytes) -> None:
    answer = get(client, f"{path}/peaks").json()
    samples = np.abs(np.frombuffer(sound, np.int16).astype(int))
    assert answer["duration_ms"] == 25_300 and answer["peaks_per_second"] == 10
    assert len(answer["peaks"]) == 253
    expected = [int(samples[at : at + 1600].max()) >> 8 for at in range(0, len(samples), 1600)]
    assert answer["peaks"] == expected


def test_before_the_recording_is_decoded_there_is_no_copy(tmp_path: Path, talk: bytes) -> None:
    with without_worker(tmp_path) as client:
        id_ = client.submit(wav(talk)).json()["id"]
        for name in ("audio", "peaks"):
            answer = get(client, f"/v1/jobs/{id_}/{name}")
            assert (answer.status_code, code_of(answer)) == (409, "playback_not_ready")


def test_it_is_encrypted_and_nobody_elses(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    args: dict[str, Any] = {
        "profile": "sim",
        "storage": {"directory": str(tmp_path), "encrypt": True},
        "jobs": {"poll_s": 0.05},
    }
    settings = with_keys(Config.model_validate(args), "acme", "bolt")
    with running(settings) as client, httpx.Client(base_url=client.url, timeout=60) as http:
        sent = {"file": ("a.wav", wav(talk))}
        id_ = http.post("/v1/jobs", files=sent, headers=bearer("acme")).json()["id"]
        url = f"/v1/jobs/{id_}"
        while http.get(url, headers=bearer("acme")).json()["state"] not in ENDED:
            pass
        whole = http.get(f"{url}/audio", headers=bearer("acme")).content
        assert whole[HEADER_BYTES:] == talk
        part = http.get(f"{url}/audio", headers={**bearer("acme"), "Range": "bytes=100-199"})
        assert part.content == whole[100:200]
        for name in ("audio", "peaks"):
            assert http.get(f"{url}/{name}", headers=bearer("bolt")).status_code == 404
        (stored,) = tmp_path.rglob("playback/blocks")
        assert b"fLaC" not in stored.read_bytes()


def test_peaks_do_not_depend_on_the_pieces() -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32767, 50_000, np.int16).tobytes()
    whole, pieces = Peaks(2), Peaks(2)
    whole.push(pcm)
    for at in range(0, len(pcm), 4_444):
        pieces.push(pcm[at : at + 4_444])
    assert whole.finish() == pieces.finish()
    assert len(whole.finish()) == 16


def test_a_long_recording_has_fewer_peaks() -> None:
    found, rate = folded(bytes(range(100)) * 1_000)
    assert len(found) <= MOST and rate == 2 and max(found) == 99
    assert folded(b"") == ([], 10)
