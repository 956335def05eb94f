"""Recordings meant to do harm: a typed error, memory bounded, the worker alive."""

import io
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import psutil
import pytest

from loadtest.speech import wav
from tests.api.test_application import encoded
from tests.jobs.test_jobs import ENDED, Client, config, running

MOST_GROWTH = 300 << 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    at = config(tmp_path_factory.mktemp("hostile"), max_audio_s=60, decode_timeout_s=20)
    with running(at) as client:
        yield client


def soundfile_of(samples: Any, rate: int, form: str, **options: Any) -> bytes:
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, **options)
    return out.getvalue()


def flac_bomb() -> bytes:
    """An hour of nothing in a few hundred kilobytes."""
    return soundfile_of(np.zeros(3600 * 16_000, np.int16), 16_000, "FLAC")


def opus_bomb() -> bytes:
    return encoded(bytes(2 * 16_000 * 240), "ogg", "libopus")


def lying_wav(size: int, rate: int, channels: int, bits: int) -> bytes:
    """A header that says what is not so, and a second of sound."""
    head = b"RIFF" + struct.pack("<I", size & 0xFFFFFFFF) + b"WAVEfmt "
    block = max(1, channels * bits // 8) & 0xFFFF
    head += struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 2 & 0xFFFFFFFF, block, bits)
    return head + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + bytes(32_000)


def many_channels(count: int) -> bytes:
    return wav(bytes(2 * count * 1600), channels=count)


def video() -> bytes:
    """Pictures without a sound."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream: Any = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, bytes(1000))
    return out.getvalue()


def matroska_loop() -> bytes:
    """A container that says nothing but that it goes on."""
    return (
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01"
        + b"\x18\x53\x80\x67\x01"
        + b"\xff" * 7
        + bytes(5000)
    )


REFUSED: dict[str, Any] = {
    "nothing": (b"", "empty_upload"),
    "a zip as wav": (zipped("a.wav"), "unsupported_media"),
    "a playlist": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n" * 4, "unsupported_media"),
    "a concat script": (b"ffconcat version 1.0\nfile /etc/passwd\n" * 4, "unsupported_media"),
    "a page": (b"<html><script>alert(1)</script></html>" * 4, "unsupported_media"),
    "an executable": (b"\x7fELF" + bytes(500), "unsupported_media"),
}

FAILED: dict[str, Any] = {
    "a flac bomb": (flac_bomb, {"recording_too_long"}),
    "an opus bomb": (opus_bomb, {"recording_too_long"}),
    "a header alone": (lambda: wav(b"")[:44], {"unreadable_audio"}),
    "half a header": (lambda: wav(b"")[:20], {"unreadable_audio"}),
    "video without sound": (video, {"unreadable_audio"}),
    "100 channels": (lambda: many_channels(100), {"too_many_channels", "unreadable_audio"}),
    "9 channels": (lambda: many_channels(9), {"too_many_channels"}),
    "no rate": (lambda: lying_wav(32_000, 0, 1, 16), {"unreadable_audio"}),
    "a rate of 4 GHz": (lambda: lying_wav(32_000, 4_000_000_000, 1, 16), {"unreadable_audio"}),
    "no channels": (lambda: lying_wav(32_000, 16_000, 0, 16), {"unreadable_audio"}),
    "noise after ftyp": (
        lambda: b"\0\0\0\x20ftypM4A " + np.random.default_rng(0).bytes(5000),
        {"unreadable_audio"},
    ),
    "noise after OggS": (
        lambda: b"OggS" + np.random.default_rng(1).bytes(50_000),
        {"unreadable_audio"},
    ),
    "an endless container": (matroska_loop, {"unreadable_audio"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_plainly_no_recording_is_refused(client: Client, name: str) -> None:
    body, code = REFUSED[name]
    answer = client.submit(body)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == code


@pytest.mark.parametrize("name", FAILED)
def test_a_hostile_recording_fails_its_job_alone(client: Client, talk: bytes, name: str) -> None:
    make, codes = FAILED[name]
    body = make()
    with watched() as highest:
        job = client.until(client.submit(body).json()["id"], *ENDED)
    assert job["state"] == "failed" and job["error"]["code"] in codes, job
    assert "Traceback" not in job["error"]["message"] and "/" not in job["error"]["message"]
    assert highest[0] < MOST_GROWTH
    assert client.done(wav(talk))["words"], "the worker goes on"


def test_a_length_that_lies_is_not_believed(client: Client) -> None:
    for size in (0xFFFFFFFF, 10):
        job = client.until(client.submit(lying_wav(size, 16_000, 1, 16)).json()["id"], *ENDED)
        assert job["state"] == "completed" and job["file"]["duration_s"] <= 1.0


def test_a_recording_that_breaks_off_is_heard_as_far_as_it_goes(
    client: Client, talk: bytes
) -> None:
    whole = encoded(talk * 3, "mp3", "mp3")
    result = client.done(whole[: len(whole) // 2])
    assert result["words"] and result["duration_ms"] < len(talk) * 3 // 32


def test_samples_that_are_no_numbers_are_silence(client: Client) -> None:
    samples = np.full(16_000, np.nan, np.float32)
    samples[::7] = np.inf
    result = client.done(soundfile_of(samples, 16_000, "WAV", subtype="FLOAT"))
    assert result["duration_ms"] == 1000


def test_the_sound_of_a_video_is_heard(client: Client, talk: bytes) -> None:
    assert client.done(encoded(talk, "mp4", "aac"), name="film.mp4")["words"]


class watched:
    """How far the memory of this process and its children grew, in bytes."""

    def __enter__(self) -> list[int]:
        self._over = threading.Event()
        self._highest = [0]
        before = _memory()

        def watch() -> None:
            while not self._over.wait(0.02):
                self._highest[0] = max(self._highest[0], _memory() - before)

        self._thread = threading.Thread(target=watch)
        self._thread.start()
        return self._highest

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _memory() -> int:
    taken = 0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            taken += process.memory_full_info().uss
        except psutil.Error:
            continue
    return taken


def test_a_file_name_that_is_a_path_or_a_header_harms_nothing(
    client: Client, talk: bytes, tmp_path: Path
) -> None:
    for name in (
        "../../../etc/passwd",
        "/etc/passwd",
        "a\r\nX: y.wav",
        "x" * 5000 + ".wav",
        "\x00.wav",
    ):
        answer = client.submit(wav(talk), name=name)
        assert answer.status_code == 202
        job = client.until(answer.json()["id"], *ENDED)
        assert job["state"] == "completed" and len(job["file"]["name"]) <= 255
        told = client.get(f"/v1/jobs/{job['id']}/audio?original=true").headers[
            "content-disposition"
        ]
        assert "/" not in told.split("''")[1] and "\n" not in told


def test_a_job_id_that_is_a_path_or_sql_is_simply_unknown(client: Client) -> None:
    for id_ in ("..%2f..%2fvoxray.db", "%2e%2e", "job_%00", "'; DROP TABLE jobs; --"):
        answer = httpx.get(f"{client.url}/v1/jobs/{id_}/audio?original=true")
        assert answer.status_code == 404, answer.text
