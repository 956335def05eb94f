"""Recordings that a client waits for: the stages of a job, without storing anything."""

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from deployments.decoding import Bounds, Undecodable
from deployments.interfaces import RATE, SpeakerCount, SpeakerTurn, SpeechOptions, Word
from serve_app.config import Limits
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.joining import Joining, Transcribed, language_of
from serve_app.jobs.prepare import Preparation, Stretch, audio
from serve_app.jobs.recogniser import Recogniser, TranscriptionFailed
from serve_app.jobs.recognition import transcribed, transcribed_windows, windows
from serve_app.jobs.result import segments_of
from serve_app.jobs.windowing import Window
from serve_app.lanes.requests import PayerOf
from serve_app.limits.limiter import Limiter
from serve_app.live.events import SessionMetrics
from serve_app.live.transcript import Segment, WordOut, ms
from serve_app.observability.metrics import Metrics
from serve_app.usage.meter import Counted, Meter


class _Blocks:
    """FLAC in a temporary file; a `decoding.Source`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0

    def write(self, blocks: bytes) -> None:
        self.size += self._file.write(blocks)

    async def read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)


class Recording:
    """One recording being transcribed. All methods raise `ClientError`."""

    def __init__(
        self,
        preparation: Preparation,
        blocks: _Blocks,
        recogniser: Recogniser,
        diarization: Diarization,
        heard: Callable[[int], None],
    ) -> None:
        """`heard` gets the number of samples as they are decoded."""
        self._heard = heard
        self._preparation = preparation
        self._blocks = blocks
        self._recogniser = recogniser
        self._diarization = diarization
        self._windows: list[Transcribed] = []
        self.samples = 0
        """Decoded so far."""
        self.spoken: list[Word] = []
        """The words so far, in samples."""

    async def transcribe(self, options: SpeechOptions) -> None:
        async with aclosing(self.words_of(options)) as found:
            async for _ in found:
                continue

    async def words_of(self, options: SpeechOptions) -> AsyncGenerator[Sequence[Word]]:
        """The words in order, as soon as they cannot change any more."""

        async def transcribe(_: int, window: Window) -> Transcribed:
            return await transcribed(self._recogniser, window, options, None)

        joining = Joining()
        with _failures():
            found = transcribed_windows(
                windows(self._stretches()), transcribe, lambda: self._recogniser.parallel_windows
            )
            async with aclosing(found):
                async for window in found:
                    self._windows.append(window)
                    yield self._settled(joining.push(window))
            yield self._settled(joining.finish())

    async def turns(self) -> list[SpeakerTurn]:
        """The turns of all speakers; call it after the words."""
        prepared = self._preparation.prepared()
        with _failures():
            return await self._diarization.turns(
                lambda: audio(prepared, self._blocks), SpeakerCount(), lambda _: None
            )

    @property
    def language(self) -> str | None:
        """What most of it was spoken in, where the engine tells."""
        return language_of(self._windows)

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.spoken)

    @property
    def words(self) -> list[WordOut]:
        return [WordOut.of(word) for word in self.spoken]

    @property
    def segments(self) -> list[Segment]:
        return segments_of(self.spoken)

    @property
    def audio_ms(self) -> int:
        return ms(self.samples)

    def metrics(self) -> SessionMetrics:
        """As for a session whose utterances are the recording's windows."""
        found = len(self._windows)
        return SessionMetrics(audio_ms=self.audio_ms, utterances=found, words=len(self.spoken))

    def _settled(self, words: list[Word]) -> list[Word]:
        self.spoken += words
        return words

    async def _stretches(self) -> AsyncGenerator[Stretch]:
        async with aclosing(self._preparation.seconds()) as seconds:
            async for second in seconds:
                self._heard(second.samples - self.samples)
                self.samples = second.samples
                self._blocks.write(second.blocks)
                yield second.stretch


class Recordings:
    """Transcribes recordings over the lanes of this process."""

    def __init__(
        self,
        recogniser: Recogniser,
        diarization: Diarization,
        metrics: Metrics,
        meter: Meter,
        limiter: Limiter,
        payer_of: PayerOf,
    ) -> None:
        self._payer_of = payer_of
        self._meter = meter
        self._limiter = limiter
        self._recogniser = recogniser
        self._diarization = diarization
        self._metrics = metrics

    @asynccontextmanager
    async def open(self, path: Path, limits: Limits, caller: Principal) -> AsyncIterator[Recording]:
        """Raises `ClientError` where the caller has no audio left; while it is being transcribed,
        too."""
        self._limiter.check_quota(caller, Counted.AUDIO)

        def heard(samples: int) -> None:
            self._limiter.check_left(caller, Counted.AUDIO)
            self._meter.add(caller, Counted.AUDIO, samples / RATE)

        preparation = Preparation(path, Bounds(limits.max_recording_s, limits.decode_timeout_s))
        payer = self._payer_of(caller)
        engines = self._recogniser.of(payer), self._diarization.of(payer)
        with tempfile.TemporaryFile(prefix="voxray-") as file:
            it = Recording(preparation, _Blocks(file), *engines, heard)
            try:
                yield it
            finally:
                self._metrics.count_sessions([(SessionMetrics(), it.metrics())])


@contextmanager
def _failures() -> Iterator[None]:
    """Failures as `ClientError`."""
    try:
        yield
    except (Undecodable, TranscriptionFailed) as error:
        raise ClientError(error.code, str(error)) from error
