"""One recording comes to the same words by every route, and is decoded once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from deployments import decoding
from deployments.decoding import Bounds, Decoding
from deployments.interfaces import RATE, Word
from deployments.transcriber import Transcriber
from deployments.transcriber.pocketsphinx import PocketSphinx
from deployments.transcriber.windows import OVERLAP
from loadtest.speech import wav
from serve_app.jobs import blocks, prepare
from serve_app.jobs.joining import Joining, Transcribed, joined
from serve_app.jobs.prepare import Preparation, Prepared, audio, stretches
from serve_app.jobs.recognition import transcribed_windows
from serve_app.jobs.windowing import Window
from tests.fakes import LocalReplicaSet, models, served, sim_transcriber, working
from tests.jobs.test_jobs import ENDED, Client, config, long, slow


class InMemory:
    """A `decoding.Source`."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.size = len(body)

    async def read(self, start: int, end: int) -> bytes:
        return self._body[start:end]


def pocketsphinx() -> Transcriber:
    engine: Any = PocketSphinx(1)
    return Transcriber(engine)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", [sim_transcriber, pocketsphinx])
def test_a_recording_has_the_same_words_by_every_route(
    tmp_path: Path, talk: bytes, engine: Callable[[], Transcriber]
) -> None:
    body = wav(talk[: 32_000 * 12] * (3 if engine is sim_transcriber else 1))
    at = config(tmp_path)
    there = models(transcriber=LocalReplicaSet(one=engine()))
    with (
        served(at, there) as address,
        working(at, transcriber=LocalReplicaSet(one=engine())),
    ):
        client = Client(address)
        job = client.done(body, diarize="false")
        own = httpx.post(f"{client.url}/v1/transcribe", content=body, timeout=120).json()
        form = {
            "model": "m",
            "response_format": "verbose_json",
            "timestamp_granularities[]": ["word", "segment"],
        }
        openai = httpx.post(
            f"{client.url}/v1/audio/transcriptions",
            files={"file": ("a.wav", body)},
            data=form,
            timeout=120,
        ).json()
    words = [(it["word"], it["start_ms"], it["end_ms"]) for it in job["words"]]
    assert len(words) > 10
    assert [(it["word"], it["start_ms"], it["end_ms"]) for it in own["words"]] == words
    assert [
        (it["word"], round(it["start"] * 1000), round(it["end"] * 1000)) for it in openai["words"]
    ] == words
    assert own["text"] == openai["text"] == job["full_text"]
    assert own["segments"] == job["segments"]
    assert [it["text"] for it in openai["segments"]] == [it["text"] for it in job["segments"]]


def test_a_job_that_goes_on_elsewhere_is_not_decoded_again(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Bounds] = []

    @asynccontextmanager
    async def counted(source: Any, bounds: Bounds) -> AsyncIterator[Decoding]:
        decoded.append(bounds)
        async with decoding.decoding(source, bounds) as it:
            yield it

    monkeypatch.setattr(prepare, "decoding", counted)
    at = config(tmp_path)
    with served(at) as address:
        client = Client(address)
        with working(at, transcriber=slow(0.7)):
            id_ = client.submit(wav(long(talk, 100)), denoise="true").json()["id"]
            while not list(tmp_path.rglob("checkpoints/windows/000000")):
                assert client.job(id_)["state"] in ("queued", "running")
        with working(at):
            assert client.until(id_, *ENDED)["state"] == "completed"
        result = client.get(f"/v1/jobs/{id_}/results").json()
        assert result["performance_metrics"]["windows_resumed"] >= 1
    assert len(decoded) == 1
    assert not list(tmp_path.rglob("checkpoints*")), "of no use any more"


def test_what_is_prepared_gives_the_same_audio_and_speech(talk: bytes) -> None:
    """Also where the recording ends in the middle of a frame."""
    pcm = talk[: 32_000 * 14 + 222]

    async def both() -> tuple[list[Any], Prepared, list[Any], bytes]:
        preparation = Preparation(InMemory(wav(pcm)), Bounds(100, 60))
        seconds = [it async for it in preparation.seconds()]
        kept = InMemory(b"".join(it.blocks for it in seconds))
        prepared = preparation.prepared()
        again = [it async for it in stretches(prepared, kept)]
        whole = b"".join([it async for it in audio(prepared, kept)])
        return seconds, prepared, again, whole

    seconds, prepared, again, whole = asyncio.run(both())
    assert whole == pcm and prepared.samples == len(pcm) // 2
    first = [flag for it in seconds for flag in it.stretch[0][1]]
    assert first == [flag for ((_, flags),) in again for flag in flags] and any(first)
    assert len(prepared.blocks) == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_blocks_lose_nothing(channels: int) -> None:
    noise = np.random.default_rng(channels).integers(-32768, 32768, (RATE * 11, channels))
    pcm = noise.astype(np.int16).tobytes()
    writing = blocks.Blocks(channels)
    out = writing.push(pcm) + writing.finish()
    first, last = writing.sizes
    assert blocks.decoded(out[:first]) + blocks.decoded(out[first:]) == pcm
    assert len(out) == first + last


def window(
    number: int, words: Sequence[Word], overlap: int = 0, goes_on: bool = False
) -> Transcribed:
    start = number * 28 * RATE
    return Transcribed(0, start, start + 30 * RATE, overlap, goes_on, tuple(words), None)


def test_a_word_is_settled_when_no_window_can_change_it() -> None:
    early, late = Word("early", RATE, 2 * RATE, 1.0), Word("late", 28 * RATE, 29 * RATE, 1.0)
    next_ = Word("next", 31 * RATE, 32 * RATE, 1.0)
    joining = Joining()
    assert joining.push(window(0, [early, late], goes_on=True)) == [early]
    assert joining.push(window(1, [late, next_], OVERLAP)) == [late, next_]
    assert joining.finish() == []
    assert joined([window(0, [early, late], goes_on=True)]) == [early, late]


def test_finals_come_in_order_and_a_failure_stops_the_others() -> None:
    going: set[int] = set()

    async def found() -> AsyncGenerator[Window]:
        for number in range(6):
            yield Window(0, number, 0, b"")

    async def transcribe(number: int, window_: Window) -> Transcribed:
        going.add(number)
        try:
            await asyncio.sleep(0.05 / (number + 1))
            if number == fails:
                raise OSError("failed")
            return window(number, ())
        finally:
            going.discard(number)

    async def all_() -> list[Transcribed]:
        return [it async for it in transcribed_windows(found(), transcribe, lambda: 3)]

    fails = -1
    assert [it.start for it in asyncio.run(all_())] == [n * 28 * RATE for n in range(6)]
    fails = 4
    with pytest.raises(OSError, match="failed"):
        asyncio.run(all_())
    assert not going
