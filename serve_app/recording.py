"""A whole recording through a live session: the same core as a socket, fed as fast as it goes."""

import asyncio
import time
from collections.abc import AsyncIterator

import anyio

from deployments.decoding import WINDOW_BYTES
from deployments.interfaces import BYTES_PER_SAMPLE, RATE, SpeechOptions
from serve_app.errors import ClientError
from serve_app.live import LiveSession
from serve_app.session import (
    AudioReceived,
    Close,
    Started,
    StopRequested,
    TellError,
    TellTranscript,
)
from serve_app.transcript import Segment, Transcript, WordOut

AHEAD_SHARE = 0.5
"""Of the session's bound: an utterance must fit in, or nothing would ever be dealt with."""


class Collector:
    """Finals as they come; raises what ended the session before its time."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.words: list[WordOut] = []

    async def collect(self, live: LiveSession) -> None:
        while True:
            match await live.outbox.take():
                case TellTranscript(final=True) as told:
                    self._add(told)
                case TellError(error):
                    raise error
                case Close():
                    return

    def _add(self, told: TellTranscript) -> None:
        words = [
            WordOut(
                word=word.text,
                start_ms=_ms(told.start + word.start),
                end_ms=_ms(told.start + word.end),
                confidence=round(word.confidence, 3),
            )
            for word in told.words
        ]
        self.words += words
        self.segments.append(
            Segment(
                id=told.utterance,
                start_ms=_ms(told.start),
                end_ms=_ms(told.until),
                text=" ".join(word.word for word in words),
                confidence=round(sum(w.confidence for w in words) / max(1, len(words)), 3),
            )
        )


async def transcribe(
    live: LiveSession, windows: AsyncIterator[bytes], options: SpeechOptions, ahead_s: float
) -> Collector:
    """Feed the windows (16 kHz mono pcm) with a bound on what waits, and collect the finals.

    Raises `ClientError` when an utterance fails or the session ends early.
    """
    collector = Collector()
    live.feed(Started(options))
    failure: ClientError | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collector.collect, live)
            await _feed(live, windows, int(ahead_s * AHEAD_SHARE * RATE))
    except* ClientError as errors:
        failure = _first(errors)
    if failure:
        raise failure
    return collector


def _first(errors: BaseExceptionGroup[ClientError]) -> ClientError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _feed(live: LiveSession, windows: AsyncIterator[bytes], ahead: int) -> None:
    moved = live.moved = asyncio.Event()
    async for window in windows:
        while live.ahead + WINDOW_BYTES // BYTES_PER_SAMPLE > ahead:
            moved.clear()
            await moved.wait()
        live.feed(AudioReceived(window))
    live.feed(StopRequested())


def transcript(
    collector: Collector, live: LiveSession, language: str | None, engine: str, began: float
) -> Transcript:
    return Transcript(
        text=" ".join(segment.text for segment in collector.segments if segment.text),
        duration_ms=live.metrics().audio_ms,
        language=language,
        segments=collector.segments,
        words=collector.words,
        engine=engine,
        processing_ms=round((time.monotonic() - began) * 1000),
    )


def _ms(samples: int) -> int:
    return samples * 1000 // RATE
