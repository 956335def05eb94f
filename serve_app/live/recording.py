"""A whole recording through a live session: the same core as a socket, fed as fast as it goes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from deployments.decoding import WINDOW_BYTES
from deployments.interfaces import BYTES_PER_SAMPLE, RATE, SpeechOptions
from serve_app.errors import ClientError
from serve_app.live.driver import LiveSession
from serve_app.live.events import (
    AudioReceived,
    Close,
    ErrorReport,
    Event,
    SessionMetrics,
    Started,
    StopRequested,
    TranscriptUpdate,
    UtteranceFailed,
)
from serve_app.live.transcript import Segment, Transcript, WordOut, confidence, ms

AHEAD_SHARE = 0.5
"""Of the session's bound: an utterance must fit in, or nothing would ever be dealt with."""


class Collector:
    """The sink of a recording's session: keeps the finals, and the first thing that went wrong."""

    def __init__(self, on_segment: Callable[[Segment], None] | None = None) -> None:
        self._on_segment = on_segment
        self.segments: list[Segment] = []
        self.words: list[WordOut] = []
        self.languages: Counter[str] = Counter()
        self.failure: ClientError | None = None
        self.ended = False
        self.moved = asyncio.Event()

    @property
    def language(self) -> str | None:
        """What most of it was spoken in, where the engine tells."""
        return self.languages.most_common(1)[0][0] if self.languages else None

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments if segment.text)

    def on_event(self, event: Event) -> None:
        match event:
            case TranscriptUpdate(final=True):
                self._add(event)
                if event.language:
                    self.languages[event.language] += len(event.words)
            case ErrorReport(error) | UtteranceFailed(_, error):
                self.failure = self.failure or error
            case Close():
                self.ended = True
        self.moved.set()

    def on_abandoned(self, code: str) -> None:
        self.failure = self.failure or ClientError(code, "the recording could not be transcribed")
        self.ended = True
        self.moved.set()

    async def wait(self) -> None:
        """Until something has happened. Raises what went wrong."""
        await self.moved.wait()
        self.moved.clear()
        if self.failure:
            raise self.failure

    def _add(self, told: TranscriptUpdate) -> None:
        words = [
            WordOut(
                word=word.text,
                start_ms=ms(told.start + word.start),
                end_ms=ms(told.start + word.end),
                confidence=round(word.confidence, 3),
            )
            for word in told.words
        ]
        self.words += words
        segment = Segment(
            id=told.utterance,
            start_ms=ms(told.start),
            end_ms=ms(told.until),
            text=" ".join(word.word for word in words),
            confidence=confidence(told.words),
        )
        self.segments.append(segment)
        if self._on_segment:
            self._on_segment(segment)


async def transcribe(
    live: LiveSession,
    collector: Collector,
    windows: AsyncIterator[bytes],
    options: SpeechOptions,
    ahead_s: float,
) -> None:
    """Feed the windows (16 kHz mono pcm) with a bound on what waits, until all finals are in.

    Raises `ClientError` when an utterance fails or the session ends early.
    """
    ahead = int(ahead_s * AHEAD_SHARE * RATE)
    live.progressed = collector.moved.set
    live.feed(Started(options))
    async for window in windows:
        while live.ahead + WINDOW_BYTES // BYTES_PER_SAMPLE > ahead:
            await collector.wait()
        live.feed(AudioReceived(window))
    live.feed(StopRequested())
    while not collector.ended:
        await collector.wait()


def transcript(
    collector: Collector, session: SessionMetrics, language: str | None, engine: str, began: float
) -> Transcript:
    return Transcript(
        text=collector.text,
        duration_ms=session.audio_ms,
        language=language or collector.language,
        segments=collector.segments,
        words=collector.words,
        engine=engine,
        processing_ms=round((time.monotonic() - began) * 1000),
    )
