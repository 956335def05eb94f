"""Voxtral on vLLM: utterances, recordings and questions about audio, in windows that share one
continuous batch."""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import numpy as np

from deployments.audio import float_to_int16, wav_header
from deployments.interfaces import RATE, Emit, EngineFailed, Option, SpeechOptions
from deployments.transcriber.windowed import Windowed
from deployments.transcriber.windows import Spelled, spell
from deployments.vllm_engine import MISTRAL, Vllm, gpu_settings, new_tokens

Choices = tuple[list[int], dict[int, str]]

TOKENS_A_SECOND = 12
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "nl", "pt")


class Voxtral:
    """Implements `TranscriberEngine` and `Supervised`. See the config for its arguments."""

    name = "voxtral"
    languages = LANGUAGES
    revises = True  # a final is decoded from the whole utterance
    options = frozenset({Option.LANGUAGE, Option.PROMPT})

    def __init__(
        self,
        model: str,
        max_windows: int,
        step_s: float,
        max_model_len: int,
        max_answer_tokens: int,
        stall_s: float,
        eager: bool,
        gpu_memory: float = 0.0,
        detect_language: bool = True,
        gpus: int = 1,
    ) -> None:
        settings = {
            "model": model,
            "max_model_len": max_model_len,
            "max_num_seqs": max_windows,
            "dtype": "bfloat16",
            "limit_mm_per_prompt": {"audio": 1},
        }
        self._max_answer_tokens = max_answer_tokens
        self._vllm = Vllm(stall_s, settings | MISTRAL | gpu_settings(gpu_memory, gpus, eager))
        self._windowed = Windowed(self, step_s, detect_language)
        self.feed = self._windowed.feed
        self.forget = self._windowed.forget
        self._tokens = 0
        self.wait_dead = self._vllm.wait_dead

    async def start(self, emit: Emit) -> None:
        """Raises `EngineFailed` when the model cannot be loaded."""
        await self._vllm.start(self._warm_up)
        self._windowed.begin(emit)

    async def stop(self) -> None:
        await self._windowed.stop()
        await self._vllm.stop()

    def generated(self) -> int:
        """Tokens written since the start."""
        return self._tokens

    async def transcribe(self, audio: Any, options: SpeechOptions) -> list[Spelled]:
        prompt = await asyncio.to_thread(self._transcription, audio, options.language)
        return await self._write(prompt, max_tokens(len(audio)), options)

    async def language(self, audio: Any) -> str | None:
        """The most likely code after `lang:`, which the model writes before the transcript."""
        encode = self._vllm.engine.get_tokenizer().instruct.tokenizer.encode
        prefix, codes = language_choices(encode)
        if not codes:
            return None
        prompt = await asyncio.to_thread(self._transcription, audio, None)
        prompt["prompt_token_ids"] = [*prompt["prompt_token_ids"][:-1], *prefix]
        params = self._params(1)
        params.allowed_token_ids = list(codes)
        tokens, _ = await self._tokens_of(prompt, params)
        return codes.get(tokens[0]) if tokens else None

    async def answer(self, audio: Any, options: SpeechOptions) -> list[Spelled]:
        prompt = await asyncio.to_thread(self._question, audio, options.prompt or "")
        return await self._write(prompt, self._max_answer_tokens, options)

    async def _warm_up(self) -> None:
        await self.transcribe(np.zeros(RATE, np.float32), SpeechOptions())

    def _transcription(self, audio: Any, language: str | None) -> Any:
        from vllm.config.speech_to_text import SpeechToTextParams
        from vllm.model_executor.models.voxtral import VoxtralForConditionalGeneration as Model

        config = self._vllm.engine.model_config
        return Model.get_generation_prompt(
            SpeechToTextParams(
                audio=audio,
                stt_config=Model.get_speech_to_text_config(config, "transcribe"),
                model_config=config,
                language=language,
                task_type="transcribe",
                request_prompt="",
                to_language=None,
            )
        )

    def _question(self, audio: Any, question: str) -> Any:
        """A message of audio and text, built by mistral-common."""
        from mistral_common.protocol.instruct.chunk import AudioChunk, RawAudio, TextChunk
        from mistral_common.protocol.instruct.messages import UserMessage
        from mistral_common.protocol.instruct.request import ChatCompletionRequest
        from vllm.inputs import TokensPrompt

        raw = RawAudio(data=wav(audio), format="wav")
        message = UserMessage(content=[AudioChunk(input_audio=raw), TextChunk(text=question)])
        tokenizer = self._vllm.engine.get_tokenizer().mistral
        tokenized = tokenizer.encode_chat_completion(ChatCompletionRequest(messages=[message]))
        clips = [(part.audio_array, RATE) for part in tokenized.audios]
        return TokensPrompt(prompt_token_ids=tokenized.tokens, multi_modal_data={"audio": clips})

    async def _write(self, prompt: Any, most: int, options: SpeechOptions) -> list[Spelled]:
        """The words of a greedy decoding."""
        longest = self._vllm.engine.model_config.max_model_len
        room = longest - len(prompt["prompt_token_ids"])
        if room < 1:
            raise EngineFailed("the audio is too long for the model's context (max_model_len)")
        tokens, logprobs = await self._tokens_of(
            prompt, self._params(min(most, room)), options.batch
        )
        return spell(tokens, logprobs, self._vllm.text)

    async def _tokens_of(
        self, prompt: Any, params: Any, batch: bool = False
    ) -> tuple[list[int], list[float]]:
        """Tokens and their log-probabilities. Cancelling it aborts the request."""
        rendered = await self._vllm.rendered(prompt)
        cost = params.max_tokens / TOKENS_A_SECOND
        request = self._vllm.generate(rendered, params, f"window-{uuid.uuid4()}", batch, cost)
        pairs: list[tuple[int, float]] = []
        async with aclosing(request) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                added = new_tokens(output)
                self._tokens += len(added)
                pairs += added
        return [token for token, _ in pairs], [logprob for _, logprob in pairs]

    def _params(self, most: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=0.0,
            max_tokens=most,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )


def language_choices(encode: Callable[[str, bool, bool], list[int]]) -> Choices:
    """See `choices`; `encode` is that of a mistral-common tokenizer."""
    return choices({code: encode(f"lang:{code}", False, False) for code in LANGUAGES})


def choices(spelled: dict[str, list[int]]) -> Choices:
    """The common prefix of all spellings of `lang:xx`, and the next token of each code.

    Codes that share their next token are left out: a small vocabulary spells codes by letters.
    """
    rows = list(spelled.values())
    common = next(at for at, row in enumerate(zip(*rows, strict=False)) if len(set(row)) > 1)
    nexts = [row[common] for row in rows]
    codes = {row[common]: code for code, row in spelled.items() if nexts.count(row[common]) == 1}
    return rows[0][:common], codes


def max_tokens(samples: int) -> int:
    """Speech has fewer than twelve tokens a second; beyond that the model repeats itself."""
    return 16 + TOKENS_A_SECOND * samples // RATE


def wav(audio: Any) -> bytes:
    """float32 samples at `RATE` as a WAV file."""
    pcm = float_to_int16(audio).astype("<i2").tobytes()
    return wav_header(RATE, len(pcm)) + pcm
