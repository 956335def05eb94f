"""Each real engine against its library called directly, on the CPU, with tiny or small weights.

`make bench-engines`. What is said is noise; the ratio is what the serving around the library costs
(1.00: nothing), and what a batch gains over one call after the other. Medians of several runs.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from deployments.audio import pcm_to_float
from deployments.chat.vllm import VllmChat
from deployments.interfaces import (
    RATE,
    ChatOptions,
    ChatRequest,
    EngineHypothesis,
    Message,
    SpeechOptions,
    SpeechRequest,
    Utterance,
)
from deployments.speaker.kokoro import Kokoro
from deployments.transcriber.voxtral import Voxtral, max_tokens
from deployments.transcriber.voxtral_realtime import VoxtralRealtime
from deployments.transcriber.voxtral_transformers import VoxtralTransformers
from loadtest import checkpoints

BATCHES = (1, 4, 16)
SECONDS = 4.0
TOKENS = 32
SENTENCE = "The weather in Paris will be sunny and warm."

Work = Callable[[int], Awaitable[None]]


def audio(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    pcm: bytes = (random.standard_normal(int(SECONDS * RATE)) * 3000).astype("<i2").tobytes()
    return pcm


class Ear:
    """A transcriber that is fed whole utterances."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self._finals: dict[int, asyncio.Future[EngineHypothesis]] = {}

    def emit(self, hypotheses: Any) -> None:
        for hypothesis in hypotheses:
            if hypothesis.final:
                assert hypothesis.failure is None, hypothesis.failure
                self._finals.pop(hypothesis.key).set_result(hypothesis)

    async def hear(self, seed: int) -> None:
        key = time.monotonic_ns() + seed
        final = self._finals[key] = asyncio.get_running_loop().create_future()
        options = SpeechOptions("en", interim_results=False)
        await self.engine.feed([Utterance(key, audio(seed), True, options)])
        await final


async def timed(work: Work, size: int, runs: int) -> float:
    """Median seconds for `size` at once."""
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        await asyncio.gather(*(work(number) for number in range(size)))
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


async def compare(name: str, ours: Work, library: Work, runs: int, together: bool) -> None:
    """`together`: the library batches by itself, too; else it is called one after the other."""
    for size in BATCHES:
        mine = await timed(ours, size, runs)
        if together:
            theirs = await timed(library, size, runs)
        else:
            theirs = await timed(library, 1, runs) * size
        print(
            f"{name:22} batch {size:2}: {mine * 1000:8.0f} ms, library {theirs * 1000:8.0f} ms, "
            f"ratio {theirs / mine:.2f}",
            flush=True,
        )


async def bench_kokoro(folder: Path, runs: int) -> None:
    import torch

    engine = Kokoro(str(checkpoints.kokoro(folder / "kokoro", ("af_heart",))), "cpu", 16)
    await engine.start()
    spelled = await engine._spell("a", SENTENCE)
    clause = engine._clause(spelled, SpeechRequest(0, SENTENCE, "af_heart"))
    model = engine._batch._model
    ids = torch.tensor([[0, *clause.ids, 0]])

    def call() -> None:
        engine._batch._sine.seeds = [clause.seed]
        model.forward_with_tokens(ids, clause.style, 1.0)

    async def library(_: int) -> None:
        await asyncio.to_thread(call)

    async def ours(number: int) -> None:
        async for _ in engine.speak(SpeechRequest(number, SENTENCE, "af_heart")):
            pass

    await compare("kokoro (full size)", ours, library, runs, together=False)
    await engine.stop()


async def bench_transformers(folder: Path, runs: int) -> None:
    path = str(checkpoints.voxtral_transformers(folder / "voxtral-hf"))
    ear = Ear(VoxtralTransformers(path, "cpu", 16, 1.0, 32, False))
    await ear.engine.start(ear.emit)
    it = ear.engine

    def call(seed: int) -> None:
        inputs = it._processor.apply_transcription_request(
            audio=[pcm_to_float(audio(seed))],
            format=["WAV"],
            sampling_rate=RATE,
            language="en",
            model_id=path,
        ).to("cpu", dtype=it._model.dtype)
        it._model.generate(**inputs, max_new_tokens=max_tokens(int(SECONDS * RATE)))

    async def library(number: int) -> None:
        await asyncio.to_thread(call, number)

    await compare("voxtral-transformers", ear.hear, library, runs, together=False)
    await it.stop()


async def bench_voxtral(folder: Path, runs: int) -> None:
    from vllm import SamplingParams

    path = str(checkpoints.voxtral(folder / "voxtral"))
    ear = Ear(Voxtral(path, 16, 1.0, 2048, 32, 30.0, True))
    await ear.engine.start(ear.emit)
    it = ear.engine

    async def library(number: int) -> None:
        prompt = it._transcription(pcm_to_float(audio(number)), "en")
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens(int(SECONDS * RATE)))
        name = f"library-{time.monotonic_ns()}-{number}"
        async for _ in it._vllm.engine.generate(prompt, params, name):
            pass

    await compare("voxtral", ear.hear, library, runs, together=True)
    await it.stop()


async def bench_realtime(folder: Path, runs: int) -> None:
    from vllm.engine.protocol import StreamingInput
    from vllm.model_executor.models.voxtral_realtime import VoxtralRealtimeGeneration
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    path = str(checkpoints.voxtral_realtime(folder / "realtime"))
    ear = Ear(VoxtralRealtime(path, 480, 16, 40.0, 1024, 30.0, True))
    await ear.engine.start(ear.emit)
    engine, params = ear.engine._vllm.engine, ear.engine._params()

    async def library(number: int) -> None:
        fed: asyncio.Queue[list[int]] = asyncio.Queue()

        async def sound() -> Any:
            yield pcm_to_float(audio(number))

        async def inputs() -> Any:
            config = engine.model_config
            buffered = VoxtralRealtimeGeneration.buffer_realtime_audio(sound(), fed, config)
            async for prompt in buffered:
                parsed = [parse_model_prompt(config, prompt)]
                (rendered,) = await engine.renderer.render_cmpl_async(parsed)
                yield StreamingInput(prompt=rendered)

        name = f"library-{time.monotonic_ns()}-{number}"
        async for output in engine.generate(inputs(), params, name):
            for completion in output.outputs:
                fed.put_nowait(list(completion.token_ids))

    await compare("voxtral-realtime", ear.hear, library, runs, together=True)
    await ear.engine.stop()


async def bench_chat(folder: Path, runs: int) -> None:
    from vllm import SamplingParams

    path = str(checkpoints.chat(folder / "chat"))
    chat = VllmChat(path, 2048, 16, "mistral", "", 30.0, True)
    await chat.start()
    engine = chat._vllm.engine
    ids = engine.get_tokenizer().apply_chat_template([{"role": "user", "content": SENTENCE}])
    ask = ChatRequest(
        0, (Message("user", SENTENCE),), ChatOptions(max_tokens=TOKENS, temperature=0.0)
    )

    async def library(number: int) -> None:
        params = SamplingParams(temperature=0.0, max_tokens=TOKENS)
        name = f"library-{time.monotonic_ns()}-{number}"
        async for _ in engine.generate({"prompt_token_ids": ids}, params, name):
            pass

    async def ours(_: int) -> None:
        async for _piece in chat.reply(ask):
            pass

    await compare("chat vllm", ours, library, runs, together=True)
    await chat.stop()


BENCHES = {
    "kokoro": bench_kokoro,
    "voxtral-transformers": bench_transformers,
    "voxtral": bench_voxtral,
    "voxtral-realtime": bench_realtime,
    "vllm": bench_chat,
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--engines", default=",".join(BENCHES), help="of " + ", ".join(BENCHES))
    asked.add_argument("--runs", type=int, default=3)
    args = asked.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        for name in args.engines.split(","):
            asyncio.run(BENCHES[name](Path(folder), args.runs))


if __name__ == "__main__":
    main()
