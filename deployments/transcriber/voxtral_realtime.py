"""Voxtral Realtime on vLLM: live sessions, each a streaming request in one continuous batch.

The session's VAD gates it: there is a request only during speech. A new request starts in a pause
before the current one reaches the model's context length, so that an utterance may have any length
and steps do not get slower.
"""

import asyncio
import json
import logging
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from deployments.fair_slots import FairSlots
from deployments.fairness import PAYER
from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    NO_OPTIONS,
    RATE,
    Emit,
    EngineFailed,
    EngineHypothesis,
    SpeechOptions,
    Word,
)
from deployments.transcriber.token_clock import FRAME, TokenClock
from deployments.transcriber.utterances import UtteranceAudio, Utterances
from deployments.vllm_engine import MISTRAL, Vllm, gpu_settings, new_tokens

log = logging.getLogger("voxray.voxtral_realtime")

PREFIX_TOKENS = 128
"""More than the overhead of a request: left padding, the delay, the flush at its end."""

GAP_FRAMES = 6
"""Frames without a word that count as a pause, in which a new request may start."""

LONGEST_WORD = 3 * RATE
"""Samples that are decoded again, at most, when a request must end without a pause."""

FORCED = 1.5
"""Without a pause a request ends at this multiple of `max_request_s`."""


class _Utterance(UtteranceAudio):
    def __init__(self, options: SpeechOptions) -> None:
        super().__init__(options)
        self.words: list[Word] = []
        self.emitted = 0

    async def pieces(self, start: int) -> AsyncIterator[Any]:
        """Audio from a sample on, as it arrives, in whole frames except the last."""
        while True:
            end = self.samples if self.ended else start + (self.samples - start) // FRAME * FRAME
            if end > start:
                yield self.audio(start, end)
                start = end
            elif self.ended:
                return
            else:
                await self.until(start + FRAME)


class VoxtralRealtime:
    """Implements `TranscriberEngine` and `Supervised`. See the config for its arguments."""

    name = "voxtral-realtime"
    languages = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "zh")
    revises = False
    options = NO_OPTIONS  # it detects the language itself

    def __init__(
        self,
        model: str,
        delay_ms: int,
        max_streams: int,
        max_request_s: float,
        max_model_len: int,
        stall_s: float,
        eager: bool,
        gpu_memory: float = 0.0,
        gpus: int = 1,
    ) -> None:
        self._model = Path(model)
        self._delay_ms = delay_ms
        self._stall_s = stall_s
        most_s = (max_model_len - PREFIX_TOKENS) * FRAME / RATE
        self._rotate_s = min(max_request_s, most_s / FORCED)
        self._slots = FairSlots(max_streams)
        self._utterances = Utterances(_Utterance, self._recognise)
        self.feed = self._utterances.feed
        self.forget = self._utterances.forget
        self._streams: set[_Progress] = set()
        self._watching: asyncio.Task[None] | None = None
        self._behind = (delay_ms // 80 + 2) * FRAME
        self._view = tempfile.TemporaryDirectory(prefix="voxray-voxtral-")
        self.requests = 0
        self._tokens = 0
        settings = {
            "model": self._view.name,
            "max_model_len": max_model_len,
            "max_num_seqs": max_streams,
            "dtype": "bfloat16",
        }
        self._vllm = Vllm(stall_s, settings | MISTRAL | gpu_settings(gpu_memory, gpus, eager))
        self.wait_dead = self._vllm.wait_dead

    async def start(self, emit: Emit) -> None:
        """Raises `EngineFailed` when the model cannot be loaded."""
        with_delay(self._model, Path(self._view.name), self._delay_ms)
        await self._vllm.start(self._warm_up)
        self._watching = asyncio.create_task(self._watch())
        self._utterances.emit = emit

    async def stop(self) -> None:
        await self._utterances.stop()
        if self._watching:
            self._watching.cancel()
        await self._vllm.stop()
        self._view.cleanup()

    def generated(self) -> int:
        """Tokens written since the start."""
        return self._tokens

    async def _warm_up(self) -> None:
        """Recognise silence: this compiles what the first speaker would wait for."""
        silence = _Utterance(SpeechOptions())
        silence.add(bytes(RATE * BYTES_PER_SAMPLE), True)
        await self._stream(None, silence, 0)

    async def _recognise(self, key: Hashable, utterance: _Utterance) -> EngineHypothesis:
        payer = PAYER.get()
        async with self._slots.slot(payer, batch=utterance.options.batch):
            start: int | None = 0
            while start is not None:
                utterance.drop_before(start)
                start = await self._stream(key, utterance, start)
            self._slots.charge(payer, utterance.samples / RATE, utterance.options.batch)
        return self._hypothesis(key, utterance, utterance.samples, True)

    async def _stream(self, key: Hashable, utterance: _Utterance, start: int) -> int | None:
        """Run one request from a sample on; return the sample where the next one starts, if any."""
        clock = TokenClock(self._vllm.text, start)
        before = list(utterance.words)
        tokens: asyncio.Queue[list[int]] = asyncio.Queue()
        request = self._vllm.generate(
            self._inputs(utterance, start, tokens),
            self._params(),
            f"live-{uuid.uuid4()}",
            utterance.options.batch,
        )
        self.requests += 1
        progress = _Progress(utterance, clock, self._behind)
        self._streams.add(progress)
        try:
            async with aclosing(request) as outputs:  # type: ignore[type-var]
                async for output in outputs:
                    progress.moved()
                    self._take(output, clock, tokens)
                    utterance.words = before + clock.words
                    self._emit_partial(key, utterance, min(clock.now, utterance.samples))
                    if (cut := self._cut(utterance, clock, start)) is not None:
                        utterance.words = [word for word in utterance.words if word.start < cut]
                        return cut
        finally:
            self._streams.discard(progress)
        clock.finish()
        utterance.words = before + clock.words
        return self._rest(utterance, clock, start)

    def _rest(self, utterance: _Utterance, clock: TokenClock, start: int) -> int | None:
        """vLLM ends a request silently when it gets too long: another one continues."""
        if utterance.ended and clock.now >= utterance.samples - FRAME:
            return None
        if clock.now == start:
            raise EngineFailed("the model wrote nothing")
        log.warning("utterance_cut_short", extra={"tokens": clock.tokens})
        return min(clock.now, utterance.samples)

    async def _inputs(
        self, utterance: _Utterance, start: int, tokens: asyncio.Queue[list[int]]
    ) -> AsyncIterator[Any]:
        """The request's frames, each with the model's last token."""
        from vllm.engine.protocol import StreamingInput
        from vllm.model_executor.models.voxtral_realtime import VoxtralRealtimeGeneration

        config = self._vllm.engine.model_config
        buffered: AsyncIterator[Any] = VoxtralRealtimeGeneration.buffer_realtime_audio(
            utterance.pieces(start), tokens, config
        )
        async for prompt in buffered:
            yield StreamingInput(prompt=await self._vllm.rendered(prompt))

    def _params(self) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams.from_optional(
            temperature=0.0,
            max_tokens=1,
            logprobs=0,
            output_kind=RequestOutputKind.DELTA,
            skip_clone=True,
        )

    def _take(self, output: Any, clock: TokenClock, tokens: asyncio.Queue[list[int]]) -> None:
        pairs = new_tokens(output)
        self._tokens += len(pairs)
        tokens.put_nowait([token for token, _ in pairs])
        for token, logprob in pairs:
            clock.take(token, logprob)

    def _cut(self, utterance: _Utterance, clock: TokenClock, start: int) -> int | None:
        """Where this request ends and the next one starts: in a pause, or after a word if there is
        no pause for too long."""
        age_s = (clock.now - start) / RATE
        fits = (utterance.samples - start) / RATE < self._rotate_s * FORCED
        if age_s < self._rotate_s or (utterance.ended and fits):
            return None
        gap = clock.gap()
        if gap and gap[1] - gap[0] >= GAP_FRAMES * FRAME:
            return gap[0] + quietest(utterance.audio(*gap))
        if age_s >= self._rotate_s * FORCED:
            return max(clock.last_border(), clock.now - LONGEST_WORD)
        return None

    def _emit_partial(self, key: Hashable, utterance: _Utterance, until: int) -> None:
        if utterance.options.interim_results:
            self._utterances.emit([self._hypothesis(key, utterance, until, False)])

    def _hypothesis(
        self, key: Hashable, utterance: _Utterance, until: int, final: bool
    ) -> EngineHypothesis:
        """The words that were not emitted yet."""
        emitted, utterance.emitted = utterance.emitted, len(utterance.words)
        return EngineHypothesis(key, until, tuple(utterance.words[emitted:]), final, emitted)

    async def _watch(self) -> None:
        """Owned by `_watching`. vLLM may hang one session and serve the others."""
        while True:
            await asyncio.sleep(self._stall_s / 4)
            if any(stream.stalled(self._stall_s) for stream in self._streams):
                self._vllm.die(f"no token for {self._stall_s:g} s")
                return


class _Progress:
    """When a request last wrote a token, or had no audio left."""

    def __init__(self, utterance: _Utterance, clock: TokenClock, behind: int) -> None:
        self._utterance = utterance
        self._clock = clock
        self._behind = behind
        self.moved()

    def moved(self) -> None:
        self._at = time.monotonic()

    def stalled(self, stall_s: float) -> bool:
        utterance = self._utterance
        if not utterance.ended and utterance.samples < self._clock.now + self._behind:
            self.moved()  # it waits for audio
        return time.monotonic() - self._at > stall_s


def quietest(audio: Any) -> int:
    """The middle of the quietest 20 ms of float32 audio, as a sample."""
    size = RATE // 50
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    return int(np.argmin(np.square(frames).sum(axis=1))) * size + size // 2


def with_delay(model: Path, view: Path, delay_ms: int) -> None:
    """Link the model into `view`, with a tokenizer that has this delay; vLLM reads it from there.

    Raises `EngineFailed` when it is not a Voxtral Realtime model.
    """
    try:
        tokenizer = json.loads((model / "tekken.json").read_text())
        tokenizer["audio"] |= {"transcription_delay_ms": float(delay_ms)}
    except (OSError, ValueError, KeyError) as error:
        raise EngineFailed(f"{model} contains no Voxtral Realtime model: {error!r}") from error
    for file in model.iterdir():
        if file.name != "tekken.json":
            (view / file.name).symlink_to(file.resolve())
    (view / "tekken.json").write_text(json.dumps(tokenizer))
