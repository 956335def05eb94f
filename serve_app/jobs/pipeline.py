"""The stages of a job: prepare, then transcribe and diarize in parallel, then align. Each stage
stores a checkpoint, and continues from an existing one."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from deployments.decoding import Bounds
from deployments.interfaces import RATE, SpeakerTurn, SpeechOptions
from serve_app.config import JobsConfig
from serve_app.jobs.checkpoints import PREPARED, TURNS, Checkpoints, window_name
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.job import Job
from serve_app.jobs.joining import Transcribed, joined, language_of
from serve_app.jobs.objects import Objects
from serve_app.jobs.persistence import persistently
from serve_app.jobs.prepare import Preparation, Prepared, audio, stretches
from serve_app.jobs.recogniser import Recogniser
from serve_app.jobs.recognition import transcribed, transcribed_windows, windows
from serve_app.jobs.report import Report
from serve_app.jobs.result import Result, StageResults, result
from serve_app.jobs.timing import StageTimer
from serve_app.jobs.windowing import Window

DECODER_WAIT_S = 1200.0
"""A decoder in the background gets only the CPU time that live speech leaves."""


class Pipeline:
    """The stages of one job. Raises `Undecodable`, `TranscriptionFailed` and `ClientError`."""

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
        self._recogniser = recogniser
        self._diarization = diarization
        self._config = config
        self._engines = engines
        self._setup = setup
        self._timing = StageTimer()
        self._resumed = 0
        self.report = Report(job.heard_s)
        self._checkpoints = Checkpoints(job, objects, self.report)

    async def run(self, known: Callable[[Prepared], Awaitable[bytes | None]]) -> bytes:
        """The result, as JSON. `known` looks for a stored result of the same recording."""
        with self._timing.timed("total"):
            prepared = await self._prepared()
            if body := await known(prepared):
                return body
            found = await self._transcribed_and_diarized(prepared)
            whole = await asyncio.to_thread(self._aligned, prepared, *found)
        timing = self._timing.shown(prepared.samples / RATE)
        whole.performance_metrics = {**timing, "windows_resumed": self._resumed}
        return whole.model_dump_json().encode()

    def fingerprint(self, prepared: Prepared) -> str:
        """A hash of samples, options and engine settings: the same hash means the same result."""
        parts = (prepared.quality.fingerprint, self._job.options.print, self._setup)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    # Prepare.

    async def _prepared(self) -> Prepared:
        prepared = await self._checkpoints.prepared()
        if prepared is None:
            with self._timing.timed("prepare"):
                prepared = await persistently(self._prepare)
            await self._checkpoints.put(PREPARED, prepared)
        self.report.skip("prepare")
        self.report.samples = prepared.samples
        for warning in prepared.quality.warnings():
            self.report.warn(warning)
        return prepared

    async def _prepare(self) -> Prepared:
        config, split = self._config, self._job.options.channels == "speakers"
        cpu_s = config.decode_timeout_s
        bounds = Bounds(config.max_audio_s, cpu_s, split, background=True, wait_s=DECODER_WAIT_S)
        preparation = Preparation(await self._checkpoints.recording(), bounds)
        await self._checkpoints.put_speech(self._blocks(preparation))
        await self._checkpoints.put_playback(preparation.playback())
        return preparation.prepared()

    async def _blocks(self, preparation: Preparation) -> AsyncGenerator[bytes]:
        async with aclosing(preparation.seconds()) as seconds:
            async for second in seconds:
                whole = int((preparation.duration_s or 0) * RATE)
                self.report.advance("prepare", second.samples, whole)
                if second.blocks:
                    yield second.blocks

    # Transcribe and diarize.

    async def _transcribed_and_diarized(
        self, prepared: Prepared
    ) -> tuple[list[Transcribed], list[SpeakerTurn] | None]:
        async with asyncio.TaskGroup() as tasks:
            words = tasks.create_task(self._transcribed(prepared))
            turns = tasks.create_task(self._diarized(prepared))
        return words.result(), turns.result()

    async def _transcribed(self, prepared: Prepared) -> list[Transcribed]:
        known = await self._checkpoints.windows()
        self._resumed = len(known)

        async def transcribe(number: int, window: Window) -> Transcribed:
            return known.get(number) or await self._transcribe_window(number, window, prepared)

        with self._timing.timed("transcribe"):
            found = windows(stretches(prepared, await self._checkpoints.speech()))
            async with aclosing(
                transcribed_windows(found, transcribe, lambda: self._recogniser.parallel_windows)
            ) as all_:
                done = [window async for window in all_]
        self.report.skip("transcribe")
        if any(window.music for window in done):
            self.report.warn("music")
        return done

    async def _transcribe_window(
        self, number: int, window: Window, prepared: Prepared
    ) -> Transcribed:
        asked = self._job.options
        options = SpeechOptions(
            asked.language, False, tuple(asked.hotwords), asked.grammar, asked.prompt, True
        )
        noise_db = prepared.quality.noise_db if self._denoises else None
        with self._timing.timed("windows"):
            found = await transcribed(self._recogniser, window, options, noise_db)
        await self._checkpoints.put(window_name(number), found)
        self.report.advance("transcribe", window.end, prepared.samples)
        return found

    @property
    def _denoises(self) -> bool:
        return self._job.options.denoise and self._job.options.channels == "mix"

    async def _diarized(self, prepared: Prepared) -> list[SpeakerTurn] | None:
        """None without diarization, or if each channel is a speaker."""
        options = self._job.options
        if not options.diarize or options.channels == "speakers":
            self.report.skip("diarize")
            return None
        turns = await self._checkpoints.turns()
        if turns is None:
            with self._timing.timed("diarize"):
                turns = await self._find_turns(prepared)
            await self._checkpoints.put(TURNS, turns)
        self.report.skip("diarize")
        return turns

    async def _find_turns(self, prepared: Prepared) -> list[SpeakerTurn]:
        speech = await self._checkpoints.speech()
        return await self._diarization.turns(
            lambda: audio(prepared, speech),
            self._job.options.count,
            lambda sample: self.report.advance("diarize", sample, prepared.samples),
        )

    # Align.

    def _aligned(
        self, prepared: Prepared, found: list[Transcribed], turns: list[SpeakerTurn] | None
    ) -> Result:
        with self._timing.timed("align"):
            speakers = turns if prepared.quality.speech or turns is None else []
            results = self._stage_results(found, speakers)
            warnings, words = self.report.warnings, self._job.options.words
            return result(results, prepared.quality, warnings, self._engines, words)

    def _stage_results(
        self, found: list[Transcribed], turns: list[SpeakerTurn] | None
    ) -> StageResults:
        language = self._job.options.language or language_of(found)
        if self._job.options.channels == "mix":
            return StageResults(joined(found), language, turns, None)
        numbers = sorted({window.channel for window in found})
        by_channel = {
            number: joined(it for it in found if it.channel == number) for number in numbers
        }
        return StageResults((), language, None, by_channel)
