"""Transcribes the windows of a recording; for jobs and for recordings that a client waits for."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any

from deployments.denoising import denoised
from deployments.interfaces import Hypothesis, SpeechOptions
from serve_app.jobs.joining import Transcribed
from serve_app.jobs.music import is_music
from serve_app.jobs.prepare import Stretch
from serve_app.jobs.recogniser import Recogniser, TranscriptionFailed
from serve_app.jobs.windowing import Window, Windowing

log = logging.getLogger("voxray.jobs")

WINDOW_ATTEMPTS = 3

Transcribe = Callable[[int, Window], Coroutine[Any, Any, Transcribed]]
"""Transcribes a window, given its number."""


async def windows(stretches: AsyncGenerator[Stretch]) -> AsyncGenerator[Window]:
    """Split in pauses; the order of windows of several channels is always the same."""
    cutting: list[Windowing] = []
    async with aclosing(stretches):
        async for stretch in stretches:
            cutting = cutting or [Windowing(number) for number in range(len(stretch))]
            for one, (pcm, flags) in zip(cutting, stretch, strict=True):
                for window in one.push(pcm, flags):
                    yield window
    for one in cutting:
        for window in one.finish():
            yield window


async def transcribed_windows(
    found: AsyncGenerator[Window], transcribe: Transcribe, at_once: Callable[[], int]
) -> AsyncGenerator[Transcribed]:
    """The transcribed windows in their order; up to `at_once()` are transcribed in parallel.

    Raises what `transcribe` raises. Closing it stops the model.
    """
    asked: deque[asyncio.Task[Transcribed]] = deque()
    number = 0
    try:
        async with aclosing(found):
            async for window in found:
                while len(_running(asked)) >= at_once():
                    await _some_done(asked)
                while asked and asked[0].done():
                    yield asked.popleft().result()
                asked.append(asyncio.create_task(transcribe(number, window)))
                number += 1
        while asked:
            await _some_done(asked)
            while asked and asked[0].done():
                yield asked.popleft().result()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _running(asked: Iterable[asyncio.Task[Transcribed]]) -> list[asyncio.Task[Transcribed]]:
    return [task for task in asked if not task.done()]


async def _some_done(asked: Iterable[asyncio.Task[Transcribed]]) -> None:
    """Wait until one is done. Raises what any of them raised."""
    if running := _running(asked):
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in asked:
        if task.done():
            task.result()


async def transcribed(
    recogniser: Recogniser, window: Window, options: SpeechOptions, noise_db: float | None
) -> Transcribed:
    """A window's words, positioned in the recording; no words for music.

    Raises `TranscriptionFailed` and `ClientError`.
    """
    pcm = window.pcm
    if noise_db is not None:
        pcm = await asyncio.to_thread(denoised, pcm, noise_db)
    music = await asyncio.to_thread(is_music, pcm)
    answer = None if music else await _with_retries(recogniser, pcm, options)
    words = (
        word._replace(
            start=min(window.end, window.start + word.start),
            end=min(window.end, window.start + word.end),
        )
        for word in (answer.words if answer else ())
    )
    where = (window.channel, window.start, window.end, window.overlap, window.goes_on)
    return Transcribed(*where, tuple(words), answer.language if answer else None, music)


async def _with_retries(recogniser: Recogniser, pcm: bytes, options: SpeechOptions) -> Hypothesis:
    """Retry if the engine fails."""
    for _ in range(WINDOW_ATTEMPTS - 1):
        try:
            return await recogniser.transcribe(pcm, options)
        except TranscriptionFailed as failure:
            if failure.code != "utterance_failed":
                raise
            log.warning("window_retried")
    return await recogniser.transcribe(pcm, options)
