"""The simulated engine: words in proportion to the audio, after a given time, with little CPU.

For capacity planning and tests. Its name is in every answer.
"""

import asyncio
import zlib
from collections.abc import Hashable, Sequence
from functools import partial

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    RATE,
    Emit,
    EngineHypothesis,
    Option,
    Utterance,
    Word,
)
from deployments.transcriber.sim_processor import SimProcessor

VOCABULARY = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november "
    "oscar papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
).split()

SILENT_S = 10.0
"""It answers on time, or its timers no longer run."""

PRINT_BYTES = 64
"""The amount of audio that decides a word: enough to distinguish two recordings."""


class _Progress:
    __slots__ = ("failed", "received", "tail", "words")

    def __init__(self) -> None:
        self.received = 0
        self.words = 0
        self.tail = b""
        self.failed = False


class SimTranscriber:
    """Word k of an utterance covers samples [k, k+1) x RATE / words_per_second, and is chosen by
    the seed and the last bytes of that audio, however the audio was split into pieces. An utterance
    fails with probability `error_rate`. `capacity` is in seconds of audio in a second; 0: any.
    """

    name = "sim"
    languages: tuple[str, ...] | None = None
    revises = False
    options = frozenset({Option.LANGUAGE, Option.PROMPT})

    def __init__(
        self,
        latency_ms: float,
        words_per_second: float,
        error_rate: float,
        seed: int,
        capacity: float = 0.0,
    ) -> None:
        self._latency_s = latency_ms / 1000
        self.stall_s = SILENT_S + self._latency_s
        self._word_samples = round(RATE / words_per_second)
        self._error_rate = error_rate
        self._seed = seed
        self._progress: dict[Hashable, _Progress] = {}
        self._processor = SimProcessor(capacity) if capacity else None

    async def start(self, emit: Emit) -> None:
        self._emit = emit

    async def feed(self, batch: Sequence[Utterance]) -> None:
        hypotheses = [self._hypothesis(utterance) for utterance in batch]
        if self._processor is None:
            self._emit_later(hypotheses)
            return
        for utterance, hypothesis in zip(batch, hypotheses, strict=True):
            seconds = len(utterance.pcm) / (BYTES_PER_SAMPLE * RATE)
            done = partial(self._emit_later, [hypothesis])
            self._processor.add(utterance.key, seconds, utterance.options.batch, done)

    def _emit_later(self, hypotheses: Sequence[EngineHypothesis]) -> None:
        asyncio.get_running_loop().call_later(self._latency_s, self._emit, hypotheses)

    def waiting(self) -> int:
        """See `Queued`."""
        return 0 if self._processor is None else self._processor.waiting()

    async def forget(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            self._progress.pop(key, None)
        if self._processor:
            self._processor.forget(set(keys))

    async def stop(self) -> None:
        if self._processor:
            self._processor.stop()
        self._progress.clear()

    def _hypothesis(self, utterance: Utterance) -> EngineHypothesis:
        key, pcm, ended, _ = utterance
        progress = self._progress.get(key)
        if progress is None:
            progress = self._progress[key] = _Progress()
        keep = progress.words
        words = self._words_in(progress, pcm, ended)
        if ended:
            del self._progress[key]
        until = progress.received // BYTES_PER_SAMPLE
        failure = (
            "sim failed on purpose: its error_rate is above 0"
            if ended and progress.failed
            else None
        )
        return EngineHypothesis(key, until, tuple(words), ended, keep, failure)

    def _words_in(self, progress: _Progress, pcm: bytes, ended: bool) -> list[Word]:
        window = progress.tail + pcm
        begin = progress.received - len(progress.tail)
        progress.received += len(pcm)
        word_bytes = self._word_samples * BYTES_PER_SAMPLE
        complete = (progress.received + (word_bytes // 2 if ended else 0)) // word_bytes
        words = []
        while progress.words < complete:
            end = min((progress.words + 1) * word_bytes, progress.received) - begin
            words.append(self._word(progress, window[max(0, end - PRINT_BYTES) : end]))
        progress.tail = window[-PRINT_BYTES:]
        return words

    def _word(self, progress: _Progress, print_: bytes) -> Word:
        chance = zlib.crc32(print_, self._seed)
        if progress.words == 0:
            progress.failed = (chance >> 8) % 10_000 < self._error_rate * 10_000
        start = progress.words * self._word_samples
        progress.words += 1
        end = min(start + self._word_samples, progress.received // BYTES_PER_SAMPLE)
        return Word(VOCABULARY[chance % len(VOCABULARY)], start, end, 1.0)
