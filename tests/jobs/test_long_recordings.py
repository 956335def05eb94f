"""An hour through the whole pipeline: no drift, memory bounded by windows."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soxr

from deployments.interfaces import RATE, Hypothesis, Speech, Word
from loadtest.speech import speak
from serve_app.jobs import blocks
from tests.fakes import FakeTranscriber, LocalReplicaSet
from tests.jobs.test_jobs import ENDED, config, running

FILE_RATE = 22_050
EVERY_S = 9.7
LOUD = 1500


class Onsets(FakeTranscriber):
    """Hears a word wherever sound begins after half a second of quiet: exact to the sample."""

    def _answer(self, piece: Speech) -> Hypothesis:
        found = onsets(np.frombuffer(piece.pcm, np.int16))
        words = tuple(Word("burst", at, at + RATE // 2, 1.0) for at in found)
        until = len(piece.pcm) // 2
        return Hypothesis(piece.session, piece.utterance, until, words, piece.ended)


def onsets(samples: Any, rate: int = RATE) -> Sequence[int]:
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > LOUD)
    if not len(loud):
        return []
    begins = np.flatnonzero(np.diff(loud) > rate // 2) + 1
    return [int(loud[0]), *(int(at) for at in loud[begins])]


@pytest.mark.timeout(400)
def test_words_of_an_hour_stand_within_50_ms(tmp_path: Path) -> None:
    import soundfile

    said = speak("one").astype(np.float32)
    burst = soxr.resample(said, RATE, FILE_RATE).astype(np.int16)
    period = np.zeros(int(EVERY_S * FILE_RATE), np.int16)
    period[: len(burst)] = burst
    times = int(3600 / EVERY_S)
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", FILE_RATE, 1, format="FLAC") as file:
        for _ in range(times):
            file.write(period)
    (onset,) = onsets(burst, FILE_RATE)
    expected = [round((number * len(period) + onset) * 1000 / FILE_RATE) for number in range(times)]
    replica_set = LocalReplicaSet(onsets=Onsets())
    process = psutil.Process()
    with running(config(tmp_path, max_upload_bytes=1 << 30), transcriber=replica_set) as client:
        blocks.decoded(blocks.encoded(bytes(32_000), 1))  # FFmpeg is loaded, once for a process
        before = process.memory_info().rss
        id_ = client.submit(out.getvalue(), name="long.flac", diarize="false").json()["id"]
        highest = 0
        while (job := client.until(id_, "running", *ENDED, seconds=300))["state"] == "running":
            highest = max(highest, process.memory_info().rss)
        assert job["state"] == "completed", job
        result = client.get(f"/v1/jobs/{id_}/results").json()
    heard = [word["start_ms"] for word in result["words"]]
    assert len(heard) == times
    assert max(abs(a - b) for a, b in zip(heard, expected, strict=True)) <= 50
    assert result["duration_ms"] == pytest.approx(times * len(period) * 1000 / FILE_RATE, abs=10)
    assert highest - before < 80 << 20, "the decoded recording has 115 MB"
