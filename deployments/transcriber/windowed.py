"""Live recognition with a model that transcribes whole windows.

A growing utterance is decoded repeatedly; words that two decodings in a row agree on are stable.
A full window is settled and not decoded again.
"""

import asyncio
import logging
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from deployments.interfaces import (
    RATE,
    Emit,
    EngineHypothesis,
    SpeechOptions,
    Word,
)
from deployments.transcriber.utterances import UtteranceAudio, Utterances
from deployments.transcriber.windows import LONGEST, ModelWindow, Spelled, agreed, cut, join, timed

log = logging.getLogger("voxray.windowed")

SHORTEST = RATE // 10
"""Audio shorter than this holds no word."""


class Decoder(Protocol):
    """The model. All raise `EngineFailed`; cancelling them stops it. `audio` is float32."""

    async def transcribe(self, audio: Any, options: SpeechOptions) -> Sequence[Spelled]: ...

    async def language(self, audio: Any) -> str | None:
        """The spoken language, as ISO 639-1; None if the model cannot detect it."""

    async def answer(self, audio: Any, options: SpeechOptions) -> Sequence[Spelled]: ...


class _Utterance(UtteranceAudio):
    def __init__(self, options: SpeechOptions) -> None:
        super().__init__(options)
        self.settled: list[Word] = []
        self.border = 0
        """Where the audio of the settled words ends: at `base`, or after it if windows overlap."""
        self.stable: list[Word] = []


class Windowed:
    """`TranscriberEngine`'s feeding and forgetting over a `Decoder`; decodes again after every
    `step_s` of audio."""

    def __init__(self, decoder: Decoder, step_s: float, detect_language: bool) -> None:
        self._decoder = decoder
        self._detect = detect_language
        self._step = int(step_s * RATE)
        self._utterances = Utterances(_Utterance, self._recognise)
        self.feed = self._utterances.feed
        self.forget = self._utterances.forget
        self.stop = self._utterances.stop

    def begin(self, emit: Emit) -> None:
        self._utterances.emit = emit

    async def _recognise(self, key: Hashable, utterance: _Utterance) -> EngineHypothesis:
        words = await self._follow(key, utterance)
        language = await self._spoken(utterance, words)
        return EngineHypothesis(key, utterance.samples, tuple(words), True, language=language)

    async def _spoken(self, utterance: _Utterance, words: list[Word]) -> str | None:
        """The client's language, or else the detected one."""
        options = utterance.options
        if options.language or options.prompt or not words or not self._detect:
            return options.language
        latest = max(utterance.base, utterance.samples - LONGEST)
        return await self._decoder.language(utterance.audio(latest, utterance.samples))

    async def _follow(self, key: Hashable, utterance: _Utterance) -> list[Word]:
        options = utterance.options
        live = options.interim_results and not options.prompt
        received, previous = 0, list[Word]()
        while True:
            await utterance.until(received + self._step if live else None)
            received, ended = utterance.samples, utterance.ended
            words = await self._decode(utterance, received)
            if ended:
                return words
            self._emit_stable(key, utterance, received, previous, words)
            previous = words

    async def _decode(self, utterance: _Utterance, until: int) -> list[Word]:
        """All words up to a sample. Settles full windows."""
        audio = utterance.audio(utterance.base, until)
        if len(audio) < SHORTEST:
            return utterance.settled
        if utterance.options.prompt:
            answer = await self._decoder.answer(audio, utterance.options)
            return timed(answer, ModelWindow(0, len(audio)), audio)
        windows = cut(audio)
        received = await asyncio.gather(*(self._window(utterance, audio, it) for it in windows))
        offset = utterance.base
        words = utterance.settled
        for number, (window, more) in enumerate(zip(windows, received, strict=True)):
            start = offset + window.start
            words = self._joined(words, more, start, utterance.border)
            if number < len(windows) - 1:
                utterance.settled, utterance.border = words, offset + window.end
        utterance.drop_before(offset + windows[-1].start)
        return words

    def _joined(self, words: list[Word], more: list[Word], start: int, border: int) -> list[Word]:
        return join(words, more, ModelWindow(start, border)) if start < border else [*words, *more]

    async def _window(self, utterance: _Utterance, audio: Any, window: ModelWindow) -> list[Word]:
        part = audio[window.start : window.end]
        spelled = await self._decoder.transcribe(part, utterance.options)
        base = utterance.base
        return timed(spelled, ModelWindow(base + window.start, base + window.end), part)

    def _emit_stable(
        self,
        key: Hashable,
        utterance: _Utterance,
        until: int,
        previous: list[Word],
        words: list[Word],
    ) -> None:
        """Emit the words that this decoding and the last one agree on, and all emitted before."""
        both = agreed([word.text for word in previous], [word.text for word in words])
        if both > len(utterance.stable):
            utterance.stable += words[len(utterance.stable) : both]
        self._utterances.emit([EngineHypothesis(key, until, tuple(utterance.stable), False)])
