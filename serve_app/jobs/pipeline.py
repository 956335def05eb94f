"""A recording's way to its result: probe, then windows to words and voices to turns, then both
together. Every stage leaves a checkpoint, and begins with the one that is there."""

import asyncio
import hashlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np

from deployments.decoding import Bounds, Decoding, Undecodable, decoding
from deployments.interfaces import RATE, SpeakerTurn, SpeechOptions, Word
from deployments.transcriber.windows import ModelWindow, join
from deployments.vad import voiced
from serve_app.backoff import backoff_s
from serve_app.config import JobsConfig
from serve_app.errors import ClientError
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.job import Job
from serve_app.jobs.music import is_music
from serve_app.jobs.objects import Objects, Stored
from serve_app.jobs.quality import Quality, QualityMeter
from serve_app.jobs.recogniser import Recogniser, TranscriptionFailed
from serve_app.jobs.report import Report
from serve_app.jobs.result import Heard, Result, result
from serve_app.jobs.windowing import Window, Windowing

log = logging.getLogger("voxray.jobs")

WINDOW_TRIES = 3
PASSING = ("storage_unavailable", "storage_full")
"""What a store fails with today and not tomorrow."""

FIRST_RETRY_S, SLOWEST_RETRY_S = 1.0, 15.0
VAD_AGGRESSIVENESS = 2

Flags = list[tuple[bytes, list[bool]]]


class Probe(NamedTuple):
    """What is known of a recording once it was decoded."""

    quality: Quality
    channels: int
    format: str
    codec: str


class Transcribed(NamedTuple):
    """A window's words, in samples of its channel; as its checkpoint holds them."""

    channel: int
    start: int
    end: int
    overlap: int
    words: tuple[Word, ...]
    language: str | None
    music: bool = False


class Ears:
    """The VAD on every channel of a recording."""

    def __init__(self, channels: int) -> None:
        import webrtcvad

        self._vads = [webrtcvad.Vad(VAD_AGGRESSIVENESS) for _ in range(channels)]

    def hear(self, window: bytes) -> Flags:
        """Each channel's audio of a decoded window, and its frames' flags."""
        count = len(self._vads)
        samples = np.frombuffer(window, np.int16).reshape(-1, count)
        return [
            (pcm := samples[:, number].tobytes(), voiced(vad.is_speech, pcm))
            for number, vad in enumerate(self._vads)
        ]


class Pipeline:
    """One job's. Raises `Undecodable`, `TranscriptionFailed` and `ClientError`."""

    def __init__(
        self,
        job: Job,
        objects: Objects,
        recogniser: Recogniser,
        diarization: Diarization,
        config: JobsConfig,
        engines: dict[str, str | None],
        setup: str,
    ) -> None:
        self._job = job
        self._objects = objects
        self._recogniser = recogniser
        self._diarization = diarization
        self._config = config
        self._engines = engines
        self._setup = setup
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._resumed = 0
        self._samples = 0
        """Of the recording: what its file says, and then what it held."""
        self.report = Report()

    async def run(self, known: Callable[[Probe], Awaitable[bytes | None]]) -> bytes:
        """The result, as JSON. `known` looks whether there is one of the same recording: it is
        asked as soon as the recording was decoded once, while transcribing has begun already."""
        began = time.monotonic()
        noise_db = (await self._probe()).quality.noise_db if self._job.options.denoise else None
        work = asyncio.create_task(self._transcribed_and_diarized(noise_db))
        try:
            probe = await self._probe()
            if body := await known(probe):
                return body
            whole = await asyncio.to_thread(self._aligned, probe, *await work)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        whole.performance_metrics = self._performance(probe, time.monotonic() - began)
        return whole.model_dump_json().encode()

    async def _probe(self) -> Probe:
        """What the recording is, its quality, and which samples it holds."""
        if body := await self._objects.read(self._job, "probe"):
            probe = msgspec.msgpack.decode(body, type=Probe)
        else:
            with self._timed("probe"):
                probe = await self._listen()
            await self._keep("probe", probe)
        self.report.skip("probe")
        self._samples = probe.quality.samples
        self.report.duration_s = probe.quality.samples / RATE
        for warning in probe.quality.warnings():
            self.report.warn(warning)
        return probe

    def fingerprint(self, probe: Probe) -> str:
        """Of samples, options and engines, as they are set up: the same gives the same result."""
        parts = (probe.quality.fingerprint, self._job.options.print, self._setup)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def _transcribed_and_diarized(
        self, noise_db: float | None
    ) -> tuple[list[Transcribed], list[SpeakerTurn] | None]:
        async with asyncio.TaskGroup() as tasks:
            words = tasks.create_task(self._transcribed(noise_db))
            turns = tasks.create_task(self._diarized())
        return words.result(), turns.result()

    def _aligned(
        self, probe: Probe, windows: list[Transcribed], turns: list[SpeakerTurn] | None
    ) -> Result:
        with self._timed("align"):
            heard = self._heard(windows, turns if probe.quality.speech or turns is None else [])
            warnings, words = self.report.warnings, self._job.options.words
            return result(heard, probe.quality, warnings, self._engines, words)

    # Probe.

    async def _listen(self) -> Probe:
        listening = QualityMeter()
        async with self._decoding() as decoded:
            channels = decoded.info.channels
            ears, heard = Ears(channels), 0
            async for window in decoded.windows():
                listening.push(window, ears.hear(window))
                heard += len(window) // 2 // channels
                self._advance("probe", heard)
        info = decoded.info
        if not heard:
            raise Undecodable("unreadable_audio", "the recording holds no sound")
        return Probe(listening.quality(channels), channels, info.format, info.codec)

    # Transcribe.

    async def _transcribed(self, noise_db: float | None) -> list[Transcribed]:
        known = await self._checkpoints()
        found: dict[int, Transcribed] = dict(known)
        self._resumed = len(known)
        running: set[asyncio.Task[None]] = set()
        with self._timed("transcribe"):
            try:
                async with aclosing(self._windows(noise_db)) as windows:
                    async for number, window in windows:
                        if number in known:
                            continue
                        while len(running) >= self._recogniser.places:
                            running = await _some_done(running)
                        work = self._transcribe(number, window, found)
                        running.add(asyncio.create_task(work))
                while running:
                    running = await _some_done(running)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        self.report.skip("transcribe")
        if any(it.music for it in found.values()):
            self.report.warn("music")
        return [found[number] for number in sorted(found)]

    async def _windows(self, noise_db: float | None) -> AsyncGenerator[tuple[int, Window]]:
        """Numbered as they come, which is the same every time."""
        number = 0
        async with self._decoding(noise_db) as decoded:
            ears = Ears(decoded.info.channels)
            cutting = [Windowing(channel) for channel in range(decoded.info.channels)]
            async for raw in self._waited("decode", decoded.windows()):
                with self._timed("vad"):
                    flags = ears.hear(raw)
                for window in _cut(cutting, flags):
                    yield number, window
                    number += 1
        for one in cutting:
            for window in one.finish():
                yield number, window
                number += 1

    async def _transcribe(self, number: int, window: Window, found: dict[int, Transcribed]) -> None:
        music = await asyncio.to_thread(is_music, window.pcm)
        words, language = ((), None) if music else await self._hear(window)
        place = (window.channel, window.start, window.end, window.overlap)
        found[number] = Transcribed(*place, words, language, music)
        await self._keep(f"window/{number:06}", found[number])
        self._advance("transcribe", window.end)

    async def _hear(self, window: Window) -> tuple[tuple[Word, ...], str | None]:
        """The window's words in the recording, within the window."""
        asked = self._job.options
        options = SpeechOptions(
            asked.language, False, tuple(asked.hotwords), asked.grammar, asked.prompt, True
        )
        with self._timed("windows"):
            heard = await _tried(lambda: self._recogniser.hear(window.pcm, options))
        words = (
            word._replace(
                start=min(window.end, window.start + word.start),
                end=min(window.end, window.start + word.end),
            )
            for word in heard.words
        )
        return tuple(words), heard.language

    async def _checkpoints(self) -> dict[int, Transcribed]:
        names = await self._objects.names(self._job.place("window"))
        known = {}
        for name, _ in names:
            number = int(name.rsplit("/", 1)[1])
            if body := await self._objects.read(self._job, f"window/{number:06}"):
                known[number] = msgspec.msgpack.decode(body, type=Transcribed)
        return known

    # Diarize.

    async def _diarized(self) -> list[SpeakerTurn] | None:
        """None where nobody asked, or every channel is a speaker."""
        options = self._job.options
        if not options.diarize or options.channels == "speakers":
            self.report.skip("diarize")
            return None
        if body := await self._objects.read(self._job, "turns"):
            turns = msgspec.msgpack.decode(body, type=list[SpeakerTurn])
        else:
            with self._timed("diarize"):
                turns = await self._diarization.turns(
                    self._decoding, options.count, lambda heard: self._advance("diarize", heard)
                )
            await self._keep("turns", turns)
        self.report.skip("diarize")
        return turns

    # Align.

    def _heard(self, windows: list[Transcribed], turns: list[SpeakerTurn] | None) -> Heard:
        languages: Counter[str] = Counter()
        for window in windows:
            if window.language:
                languages[window.language] += len(window.words)
        language = self._job.options.language or next(
            (name for name, _ in languages.most_common(1)), None
        )
        if self._job.options.channels == "speakers":
            numbers = sorted({window.channel for window in windows})
            by_channel = {
                number: joined([it for it in windows if it.channel == number]) for number in numbers
            }
            return Heard((), language, None, by_channel)
        return Heard(joined(windows), language, turns, None)

    def _performance(self, probe: Probe, total_s: float) -> dict[str, float]:
        seconds = {f"{name}_s": round(value, 3) for name, value in self._spent.items()}
        audio_s = probe.quality.samples / RATE
        factor = round(audio_s / max(1e-6, total_s), 1)
        return {
            **seconds,
            "total_s": round(total_s, 3),
            "realtime_factor": factor,
            "windows_resumed": self._resumed,
        }

    # What they share.

    @asynccontextmanager
    async def _decoding(self, noise_db: float | None = None) -> AsyncIterator[Decoding]:
        options = self._job.options
        split = options.channels == "speakers"
        bounds = Bounds(
            self._config.max_audio_s,
            self._config.decode_timeout_s,
            split,
            noise_db if options.denoise and not split else None,
            background=True,
        )
        async with decoding(await self._audio(), bounds) as decoded:
            self._samples = self._samples or int((decoded.info.duration_s or 0) * RATE)
            yield decoded

    def _advance(self, step: str, heard: int) -> None:
        """So many samples of the recording have gone through a step."""
        if self._samples:
            shares = self.report.shares
            shares[step] = max(shares[step], min(0.99, heard / self._samples))

    async def _audio(self) -> Stored:
        audio = await self._objects.open(self._job, "audio")
        if audio is None:
            raise ClientError("storage_damaged", "the recording is no longer there")
        return audio

    async def _keep(self, name: str, value: Any) -> None:
        """A checkpoint, written as soon as the store can."""
        body = msgspec.msgpack.encode(value)
        await persistently(lambda: self._objects.put(self._job, name, body))
        self.report.checkpoints += 1

    def _timed(self, stage: str) -> "_Timed":
        return _Timed(self._spent, stage)

    async def _waited(self, stage: str, items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same items; the time that they were waited for is the stage's."""
        while True:
            with self._timed(stage):
                item = await anext(items, None)
            if item is None:
                return
            yield item


class _Timed:
    def __init__(self, spent: defaultdict[str, float], stage: str) -> None:
        self._spent, self._stage = spent, stage

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._spent[self._stage] += time.monotonic() - self._began


def _cut(cutting: list[Windowing], flags: Flags) -> Iterator[Window]:
    for one, (pcm, heard) in zip(cutting, flags, strict=True):
        yield from one.push(pcm, heard)


def joined(windows: list[Transcribed]) -> list[Word]:
    """All words of a channel's windows, in order, each spoken word once."""
    words: list[Word] = []
    for window in windows:
        if window.overlap:
            overlap = ModelWindow(window.start, window.start + window.overlap)
            words = join(words, window.words, overlap)
        else:
            words += window.words
    return words


async def _some_done(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Those that go on. Raises what one of the others raised."""
    done, going_on = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return going_on


async def _tried(ask: Callable[[], Awaitable[Any]]) -> Any:
    """A window's answer; an engine that fails is asked again, for that may pass."""
    for _ in range(WINDOW_TRIES - 1):
        try:
            return await ask()
        except TranscriptionFailed as failure:
            log.warning("a window is tried again: %s", failure)
    return await ask()


async def persistently(do: Callable[[], Awaitable[Any]]) -> Any:
    """The result, however long the store is away; a job at work is not given up for that."""
    attempt = 0
    while True:
        try:
            return await do()
        except ClientError as error:
            if error.code not in PASSING:
                raise
            attempt += 1
            delay_s = backoff_s(FIRST_RETRY_S, attempt, SLOWEST_RETRY_S)
            log.warning("%s: tried again in %.1f s", error.code, delay_s)
            await asyncio.sleep(delay_s)
