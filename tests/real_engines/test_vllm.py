"""Tiny Voxtral, Voxtral Realtime and a tiny chat model on the real vLLM, on the CPU."""

import asyncio
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deployments.audio import pcm_to_float
from deployments.chat.vllm import VllmChat
from deployments.interfaces import (
    RATE,
    ChatOptions,
    ChatRequest,
    EngineDied,
    EngineFailed,
    Message,
    SpeechOptions,
    Tool,
)
from deployments.transcriber.token_clock import FRAME
from deployments.transcriber.voxtral import Voxtral, max_tokens
from deployments.transcriber.voxtral_realtime import VoxtralRealtime
from deployments.transcriber.windows import spell
from tests.engine_contract import (
    ChatContract,
    Heard,
    Loop,
    TranscriberContract,
    UnderstandingContract,
    hearing,
    loop,
    noise,
    replied,
    serving,
)

__all__ = ["loop"]

STALL_S = 4.0
BLOCK = 128
"""Tokens that vLLM keeps together on a CPU."""


def kill(engine: Any, number: signal.Signals, title: str = "VLLM::EngineCor") -> None:
    """vLLM's engine process; its worker's title is `VLLM::Worker`."""
    found = [it for it in engine._vllm._processes if it.name().startswith(title)]
    assert found, [it.name() for it in engine._vllm._processes]
    for process in found:
        process.send_signal(number)


class TestVoxtralRealtime(TranscriberContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop, voxtral_realtime: Path) -> Iterator[Heard]:
        engine = VoxtralRealtime(
            model=str(voxtral_realtime),
            delay_ms=240,
            max_streams=8,
            max_request_s=15.0,
            max_model_len=512,
            stall_s=STALL_S,
            eager=True,
        )
        yield from hearing(loop, engine)

    def test_the_delay_is_the_configured_one(self, engine: Heard) -> None:
        ears = engine.engine._vllm.engine.get_tokenizer().instruct.audio_encoder
        assert ears.audio_config.get_num_delay_tokens() == 3

    def test_live_tokens_are_those_of_vllms_own_loop(self, engine: Heard, loop: Loop) -> None:
        """Paced as spoken, against vLLM's buffer and `generate` given all audio at once."""
        pcm = noise(4, 2)
        wanted = loop.run(all_tokens(engine.engine, pcm))
        taken: list[int] = []
        real = engine.engine._take

        def take(output: Any, *rest: Any) -> None:
            taken.extend(output.outputs[0].token_ids if output.outputs else ())
            real(output, *rest)

        engine.engine._take = take
        try:
            loop.run(engine.words(pcm, pace=1.0))
        finally:
            engine.engine._take = real
        assert taken == wanted and len(wanted) > 4 * 12

    def test_a_long_utterance_is_rotated_and_followed_to_its_end(
        self, engine: Heard, loop: Loop
    ) -> None:
        """Past the model's length; every word once, in order, and no step of it grows slower."""
        seconds = 75
        before = engine.engine.requests
        key = loop.run(engine.say(noise(seconds, 1), piece_s=1.0))
        final = loop.run(engine.final(key), 120)
        assert final.until == seconds * RATE and final.failure is None
        assert engine.engine.requests - before >= seconds // 23
        words = engine.all_words(key)
        starts = [word.start for word in words]
        assert starts == sorted(starts)
        assert all(a.end <= b.start + FRAME for a, b in pairwise(words))

    def test_silence_costs_nothing(self, engine: Heard, loop: Loop) -> None:
        """The VAD gates it: between utterances there is no request at all."""
        made = engine.engine.generated()
        loop.run(asyncio.sleep(1.0))
        assert engine.engine.generated() == made
        assert engine.engine._vllm.engine.get_num_unfinished_requests() == 0

    def test_more_speakers_than_places_wait_and_are_all_heard(
        self, engine: Heard, loop: Loop
    ) -> None:
        async def go() -> list[Any]:
            keys = [await engine.say(noise(1.5, n), piece_s=2) for n in range(20)]
            return [await engine.final(key) for key in keys]

        assert not [final.failure for final in loop.run(go()) if final.failure]

    def test_who_hangs_up_gives_the_place_back(self, engine: Heard, loop: Loop) -> None:
        async def go() -> None:
            for _ in range(3):
                keys = [await engine.say(noise(10, n), piece_s=0.5) for n in range(8)]
                await asyncio.sleep(0.2)
                await engine.engine.forget(keys)
            await asyncio.sleep(0.5)
            assert engine.engine._vllm.engine.get_num_unfinished_requests() == 0
            await engine.words(noise(1, 3))

        loop.run(go())

    def test_an_engine_that_freezes_is_taken_down(self, engine: Heard, loop: Loop) -> None:
        """Under load; nobody is told a wrong thing, and the processes are gone."""

        async def go() -> tuple[str, float]:
            for number in range(4):
                await engine.say(noise(10, number), piece_s=0.5)
            began = time.monotonic()
            kill(engine.engine, signal.SIGSTOP)
            return await engine.engine.wait_dead(), time.monotonic() - began

        reason, took_s = loop.run(go())
        assert took_s < 2.5 * STALL_S and reason
        time.sleep(0.5)
        assert not any(alive(process) for process in engine.engine._vllm._processes)
        failed = [told[-1] for told in engine.hypotheses.values() if told[-1].failure]
        assert not failed, "their sessions speak to another replica, and hear of no failure"


class TestVoxtral(UnderstandingContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop, voxtral: Path) -> Iterator[Heard]:
        engine = Voxtral(
            model=str(voxtral),
            max_windows=16,
            step_s=1.0,
            max_model_len=2048,
            max_answer_tokens=32,
            stall_s=STALL_S,
            eager=True,
        )
        yield from hearing(loop, engine)

    def test_the_same_tokens_as_the_library(self, engine: Heard, loop: Loop) -> None:
        from vllm import SamplingParams

        pcm, it = noise(3, 6), engine.engine

        async def library() -> list[int]:
            prompt = await it._vllm.rendered(it._transcription(pcm_to_float(pcm), "fr"))
            params = SamplingParams(temperature=0.0, max_tokens=max_tokens(len(pcm) // 2))
            async for output in it._vllm.engine.generate(prompt, params, "library"):
                tokens = list(output.outputs[0].token_ids)
            return tokens

        tokens = loop.run(library())
        wanted = [word.text for word in spell(tokens, [0.0] * len(tokens), it._vllm.text)]
        heard = loop.run(engine.words(pcm, options=SpeechOptions(language="fr")))
        assert [word.text for word in heard] == wanted and wanted

    def test_a_recording_goes_in_windows_and_keeps_its_clock(
        self, engine: Heard, loop: Loop
    ) -> None:
        quiet = SpeechOptions(interim_results=False)
        words = loop.run(engine.words(noise(100), piece_s=100, options=quiet))
        assert words[-1].end <= 100 * RATE
        for part in range(3):
            within = [w for w in words if part * 30 * RATE <= w.start < (part + 1) * 30 * RATE]
            assert within, "no window is lost"

    def test_what_is_too_long_fails_alone(self, engine: Heard, loop: Loop) -> None:
        """An answer about ten minutes does not fit into this model; its neighbours' do."""

        async def go() -> tuple[Any, Any]:
            asked = SpeechOptions(prompt="What?")
            long = await engine.say(noise(600), piece_s=600, options=asked)
            short = await engine.say(noise(1))
            return await engine.final(long), await engine.final(short)

        long, short = loop.run(go())
        assert "too long for the model" in long.failure and not short.failure

    def test_a_killed_engine_is_noticed_at_once(self, engine: Heard, loop: Loop) -> None:
        async def go() -> float:
            await engine.say(noise(10), piece_s=10)
            await asyncio.sleep(0.3)
            began = time.monotonic()
            kill(engine.engine, signal.SIGKILL)
            await engine.engine.wait_dead()
            return time.monotonic() - began

        assert loop.run(go()) < STALL_S


class TestVllmChat(ChatContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop, chat: Path) -> Iterator[Any]:
        engine = VllmChat(
            model=str(chat),
            max_model_len=2048,
            max_requests=16,
            tool_parser="mistral",
            reasoning_parser="",
            stall_s=STALL_S,
            eager=True,
        )
        yield from serving(loop, engine)

    def test_the_same_tokens_as_the_library(self, engine: Any, loop: Loop) -> None:
        from vllm import SamplingParams

        async def library() -> str:
            it = engine._vllm.engine
            messages = [{"role": "user", "content": "hello"}]
            ids = it.get_tokenizer().apply_chat_template(messages)
            params = SamplingParams(temperature=0.0, max_tokens=24)
            async for output in it.generate({"prompt_token_ids": ids}, params, "library"):
                text = output.outputs[0].text
            return str(text)

        wanted = loop.run(library())
        pieces = loop.run(replied(engine, temperature=0.0, max_tokens=24))
        assert "".join(piece.text for piece in pieces) == wanted and wanted

    def test_tools_are_called_in_the_field_for_calls(self, engine: Any, loop: Loop) -> None:
        tool = Tool("get_weather", "weather", '{"type": "object", "properties": {}}')
        asked = replied(
            engine, tools=(tool,), tool_choice="required", max_tokens=80, temperature=0.0
        )
        pieces = loop.run(asked)
        calls = [call for piece in pieces for call in piece.calls]
        assert calls and calls[0].name == "get_weather" and calls[0].id

    def test_a_prefix_is_not_read_twice(self, engine: Any, loop: Loop) -> None:
        from vllm import SamplingParams

        said = "Tell me about the weather. " * 20

        async def tokens_and_cached() -> tuple[int, int]:
            it = engine._vllm.engine
            ids = it.get_tokenizer().apply_chat_template([{"role": "user", "content": said}])
            params = SamplingParams(max_tokens=1)
            async for output in it.generate({"prompt_token_ids": ids}, params, "again"):
                cached = output.num_cached_tokens
            return len(ids), cached

        loop.run(replied(engine, said, max_tokens=1))
        tokens, cached = loop.run(tokens_and_cached())
        assert cached == tokens // BLOCK * BLOCK > 0, "all blocks but the unfinished one"

    def test_what_does_not_fit_is_refused_with_the_numbers(self, engine: Any, loop: Loop) -> None:
        with pytest.raises(EngineFailed, match="2048 tokens"):
            loop.run(replied(engine, "word " * 5000, max_tokens=4))

    def test_a_frozen_worker_is_noticed_under_load(self, engine: Any, loop: Loop) -> None:
        async def go() -> list[Any]:
            ask = ChatRequest(1, (Message("user", "hello"),), ChatOptions(max_tokens=1500))
            replies = [asyncio.create_task(all_of(engine, ask)) for _ in range(4)]
            await asyncio.sleep(0.5)
            kill(engine, signal.SIGSTOP, "VLLM::Worker")
            await engine.wait_dead()
            return list(await asyncio.gather(*replies, return_exceptions=True))

        assert all(isinstance(ended, EngineDied) for ended in loop.run(go()))


async def all_of(engine: Any, ask: ChatRequest) -> list[Any]:
    return [piece async for piece in engine.reply(ask)]


async def all_tokens(engine: VoxtralRealtime, pcm: bytes) -> list[int]:
    """As vLLM's own realtime serving does it, in one piece."""
    from vllm.engine.protocol import StreamingInput
    from vllm.model_executor.models.voxtral_realtime import VoxtralRealtimeGeneration
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    it = engine._vllm.engine
    fed: asyncio.Queue[list[int]] = asyncio.Queue()

    async def audio() -> Any:
        samples = pcm_to_float(pcm)
        yield samples[: len(samples) // FRAME * FRAME]

    async def inputs() -> Any:
        buffered = VoxtralRealtimeGeneration.buffer_realtime_audio(audio(), fed, it.model_config)
        async for prompt in buffered:
            (parsed,) = await it.renderer.render_cmpl_async(
                [parse_model_prompt(it.model_config, prompt)]
            )
            yield StreamingInput(prompt=parsed)

    tokens: list[int] = []
    async for output in it.generate(inputs(), engine._params(), "library"):
        for completion in output.outputs:
            fed.put_nowait(list(completion.token_ids))
            tokens += completion.token_ids
    return tokens


def alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
