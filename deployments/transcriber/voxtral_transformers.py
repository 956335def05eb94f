"""Voxtral through transformers, for machines without vLLM: CUDA, Apple's `mps`, or the CPU.

Windows of all sessions go through `generate` in batches; a cancelled one stops at the next token.
"""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deployments.batcher import Batcher, Jobs
from deployments.gpu import chosen_device, exclusive_gpu
from deployments.interfaces import RATE, Emit, EngineFailed, Option, SpeechOptions
from deployments.transcriber.voxtral import LANGUAGES, language_choices, max_tokens, wav
from deployments.transcriber.windowed import Windowed
from deployments.transcriber.windows import Spelled, spell


class _Window(NamedTuple):
    audio: Any
    language: str | None
    question: str | None


class VoxtralTransformers:
    """Implements `TranscriberEngine`. See the config for its arguments."""

    name = "voxtral-transformers"
    languages = LANGUAGES
    revises = True
    options = frozenset({Option.LANGUAGE, Option.PROMPT})

    def __init__(
        self,
        model: str,
        device: str,
        batch: int,
        step_s: float,
        max_answer_tokens: int,
        compile: bool,
        gpu_memory: float = 0.0,
        detect_language: bool = True,
    ) -> None:
        self._path = model
        self._device = device
        self._compile = compile
        self._gpu_memory = gpu_memory
        self._max_answer_tokens = max_answer_tokens
        self._batcher: Batcher[_Window, list[Spelled]] = Batcher(self._write, batch)
        self._windowed = Windowed(self, step_s, detect_language)
        self.feed = self._windowed.feed
        self.forget = self._windowed.forget
        self._tokens = 0
        self._stopping = threading.Event()

    async def start(self, emit: Emit) -> None:
        """Raises `EngineFailed` when the model cannot be loaded."""
        try:
            await asyncio.to_thread(self._load)
        except Exception as error:  # transformers raises many kinds
            raise EngineFailed(f"transformers cannot load {self._path}: {error}") from error
        await self.transcribe(np.zeros(RATE, np.float32), SpeechOptions())
        self._windowed.begin(emit)

    async def stop(self) -> None:
        self._stopping.set()
        await self._windowed.stop()
        await self._batcher.stop()

    def generated(self) -> int:
        """Tokens written since the start."""
        return self._tokens

    async def transcribe(self, audio: Any, options: SpeechOptions) -> list[Spelled]:
        window = _Window(audio, options.language, None)
        return await self._batcher.do(window, len(audio), options.batch)

    async def language(self, audio: Any) -> str | None:
        return await asyncio.to_thread(self._language, audio)

    async def answer(self, audio: Any, options: SpeechOptions) -> list[Spelled]:
        window = _Window(audio, None, options.prompt)
        return await self._batcher.do(window, len(audio), options.batch)

    def _load(self) -> None:
        import torch
        from transformers import AutoProcessor, VoxtralForConditionalGeneration

        self._torch = torch
        self._device = chosen_device(self._device, self._gpu_memory)
        with exclusive_gpu():
            self._processor = AutoProcessor.from_pretrained(self._path, local_files_only=True)
            model = VoxtralForConditionalGeneration.from_pretrained(
                self._path, dtype=self._dtype(), local_files_only=True
            )
            self._model = model.to(self._device).eval()
        if self._compile:
            self._model.forward = torch.compile(self._model.forward)

    def _dtype(self) -> Any:
        """bfloat16 if the device supports it, else float16."""
        torch = self._torch
        if self._device == "cuda" and not torch.cuda.is_bf16_supported():
            return torch.float16
        return torch.float16 if self._device == "mps" else torch.bfloat16

    def _write(self, jobs: Jobs[_Window, list[Spelled]]) -> list[list[Spelled]]:
        """In the batcher's thread. Questions are questions one by one: their prompts differ."""
        questions = [job for job in jobs if job.item.question]
        plain = [job for job in jobs if not job.item.question]
        words = dict(zip(plain, self._transcribe(plain), strict=True)) if plain else {}
        words |= {job: self._answer(job) for job in questions}
        return [words[job] for job in jobs]

    def _transcribe(self, jobs: Jobs[_Window, list[Spelled]]) -> list[list[Spelled]]:
        inputs = self._processor.apply_transcription_request(
            audio=[job.item.audio for job in jobs],
            format=["WAV"] * len(jobs),
            sampling_rate=RATE,
            language=[job.item.language for job in jobs],
            model_id=self._path,
        )
        return self._generate(inputs, jobs, [max_tokens(len(job.item.audio)) for job in jobs])

    def _language(self, audio: Any) -> str | None:
        """The most likely code after `lang:`, which the model writes before the transcript."""
        tokenizer = self._processor.tokenizer.tokenizer.instruct_tokenizer.tokenizer
        prefix, codes = language_choices(tokenizer.encode)
        if not codes:
            return None
        torch = self._torch
        inputs = self._processor.apply_transcription_request(
            audio=[audio], format=["WAV"], sampling_rate=RATE, model_id=self._path
        )
        ids = torch.cat([inputs["input_ids"][:, :-1], torch.tensor([prefix])], dim=1)
        features = inputs["input_features"].to(self._device, dtype=self._model.dtype)
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids.to(self._device), input_features=features, logits_to_keep=1
            ).logits[0, -1]
        return codes[max(codes, key=lambda token: float(logits[token]))]

    def _answer(self, job: Any) -> list[Spelled]:
        import base64

        audio = base64.b64encode(wav(job.item.audio)).decode()
        content = [
            {"type": "audio", "base64": audio},
            {"type": "text", "text": job.item.question},
        ]
        inputs = self._processor.apply_chat_template([{"role": "user", "content": content}])
        return self._generate(inputs, [job], [self._max_answer_tokens])[0]

    def _generate(
        self, inputs: Any, jobs: Jobs[_Window, list[Spelled]], most: list[int]
    ) -> list[list[Spelled]]:
        torch = self._torch
        prompt = inputs["input_ids"].shape[1]
        inputs = inputs.to(self._device, dtype=self._model.dtype)
        with torch.inference_mode():
            written = self._model.generate(
                **inputs,
                max_new_tokens=max(most),
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                stopping_criteria=[self._stop_rows(jobs, prompt, most)],
            )
        logprobs = self._model.compute_transition_scores(
            written.sequences, written.logits, normalize_logits=True
        )
        tokens = written.sequences[:, prompt:].tolist()
        return [
            self._spell(row, row_logprobs, limit)
            for row, row_logprobs, limit in zip(
                tokens, logprobs.float().tolist(), most, strict=True
            )
        ]

    def _stop_rows(self, jobs: Jobs[_Window, list[Spelled]], prompt: int, most: list[int]) -> Any:
        """A row ends at its limit, or when its request is cancelled."""

        def stop(ids: Any, _: Any, **__: Any) -> Any:
            length = ids.shape[1] - prompt
            ended = [
                length >= limit or job.cancelled() or self._stopping.is_set()
                for job, limit in zip(jobs, most, strict=True)
            ]
            self._tokens += ended.count(False)
            return self._torch.tensor(ended, device=ids.device)

        return stop

    def _spell(self, tokens: list[int], logprobs: list[float], limit: int) -> list[Spelled]:
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
        stop = min(stop, limit)
        return spell(tokens[:stop], logprobs[:stop], self._text)

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._processor.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text
