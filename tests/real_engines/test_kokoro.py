"""Kokoro, full size with random weights: alone, in company, and against the library."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.interfaces import EngineFailed, SpeechRequest
from deployments.speaker.kokoro import Kokoro
from deployments.speaker.phonemes import LANGUAGES
from tests.engine_contract import Loop, SpeakerContract, loop, serving, spoken

__all__ = ["loop"]

TOLERANCE = 1e-4
"""Of samples in -1..1: a clause in a padded batch against the library's own call for it."""

TEXTS = ("Hello there.", "The weather in Paris will be sunny and warm.", "I read 25 books.")


class TestKokoro(SpeakerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop, kokoro: Path) -> Iterator[Any]:
        yield from serving(loop, Kokoro(str(kokoro), "cpu", 16))

    @pytest.fixture
    def clauses(self, engine: Any, loop: Loop) -> list[Any]:
        says = [SpeechRequest(0, "", "af_heart", 1 + n / 4) for n in range(3)]
        spelled = [loop.run(engine._spell("a", text)) for text in TEXTS]
        return [engine._clause(ps, say) for ps, say in zip(spelled, says, strict=True)]

    def test_a_padded_batch_sounds_like_the_library(
        self, engine: Any, loop: Loop, kokoro: Path, clauses: list[Any]
    ) -> None:
        """The library's model against one batch of three, with two changes where the library is
        not the same twice: the noise has a seed, and the edges' phase is pi rather than -pi."""
        import torch
        from kokoro import KModel

        from deployments.speaker.kokoro_batch import KokoroBatch

        def new() -> Any:
            weights = str(kokoro / "kokoro-v1_0.pth")
            return KModel("hexgrad/Kokoro-82M", str(kokoro / "config.json"), weights).eval()

        batch = KokoroBatch(new(), together=True)
        together = batch.speak(clauses)
        library = new()
        library.decoder.generator.m_source.l_sin_gen = batch._sine
        library.decoder.generator.stft = batch._model.decoder.generator.stft
        for clause, sound in zip(clauses, together, strict=True):
            batch._sine.seeds = [clause.seed]
            batch._padding.set([len(sound) // 600], torch.device("cpu"))
            ids = torch.tensor([[0, *clause.ids, 0]])
            alone = library.forward_with_tokens(ids, clause.style, clause.speed)[0].numpy()
            assert len(alone) == len(sound)
            assert np.abs(alone - sound).max() < TOLERANCE
            assert np.abs(sound).max() > 0.1

    def test_one_batch_takes_clauses_of_all(self, engine: Any, loop: Loop) -> None:
        says = [SpeechRequest(n, "Yes, that is so.", "af_heart", 1 + n / 50) for n in range(6)]

        async def go() -> int:
            before = engine._batcher.batches
            await asyncio.gather(*(spoken(engine, say) for say in says))
            return int(engine._batcher.batches - before)

        assert loop.run(go()) <= 6  # two clauses each; without batches there would be twelve

    def test_first_clauses_go_first(self, engine: Any, loop: Loop) -> None:
        order = []

        async def say(name: str, clause: int) -> None:
            await spoken(engine, SpeechRequest(0, "Good morning.", "af_heart", clause=clause))
            order.append(name)

        async def go() -> None:
            engine._batcher._most = 1
            try:
                busy = asyncio.create_task(say("busy", 0))
                await asyncio.sleep(0.05)
                later = [asyncio.create_task(say("later", 3)) for _ in range(2)]
                await asyncio.sleep(0.05)
                await asyncio.gather(busy, *later, say("first", 0))
            finally:
                engine._batcher._most = 16

        loop.run(go())
        assert order == ["busy", "first", "later", "later"]

    def test_a_cancelled_clause_leaves_the_queue(self, engine: Any, loop: Loop) -> None:
        async def go() -> tuple[int, int]:
            engine._batcher._most = 1
            try:
                tasks = [
                    asyncio.create_task(spoken(engine, SpeechRequest(n, "One more.", "af_heart")))
                    for n in range(5)
                ]
                await asyncio.sleep(0.3)
                before = engine._batcher.batches
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(2)
            finally:
                engine._batcher._most = 16
            return before, engine._batcher.batches

        before, after = loop.run(go())
        assert after == before

    def test_every_language_is_spoken_without_a_download(self, engine: Any, loop: Loop) -> None:
        said = {
            "bf_emma": "Good morning.",
            "ef_dora": "Hola, ¿cómo estás?",
            "ff_siwis": "Bonjour tout le monde.",
            "hf_alpha": "नमस्ते दुनिया",
            "if_sara": "Ciao mondo.",
            "jf_alpha": "こんにちは、世界。",
            "pf_dora": "Olá mundo.",
            "zf_xiaobei": "你好，世界。",
        }
        assert {voice[0] for voice in said} | {"a"} == set(LANGUAGES)
        for voice, text in said.items():
            assert len(loop.run(spoken(engine, SpeechRequest(0, text, voice)))) > 12_000, voice

    def test_a_blend_is_the_mean_of_its_voices(self, engine: Any, loop: Loop) -> None:
        mixed = engine._pack("af_heart(3)+af_bella(1)")
        wanted = (3 * engine._packs["af_heart"] + engine._packs["af_bella"]) / 4
        assert np.allclose(mixed, wanted, atol=1e-6)
        assert loop.run(spoken(engine, SpeechRequest(0, "Hello.", "af_heart(2)+af_bella(1)")))
        for wrong in ("af_heart(0)", "af_heart+nobody", "af_heart++", "(2)"):
            with pytest.raises(EngineFailed):
                loop.run(spoken(engine, SpeechRequest(0, "Hello.", wrong)))

    def test_text_too_long_for_the_model_is_spoken_whole(self, engine: Any) -> None:
        async def go() -> list[str]:
            asked: list[str] = []

            async def do(clause: Any, size: int, rank: int) -> Any:
                asked.append("x" * size)
                return np.zeros(600, np.float32)

            real, engine._batcher.do = engine._batcher.do, do
            try:
                await engine._sound("a", "extraordinarily " * 80, SpeechRequest(0, "", "af_heart"))
            finally:
                engine._batcher.do = real
            return asked

        asked = asyncio.run(go())
        assert len(asked) > 1 and max(map(len, asked)) <= 510


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="contains no Kokoro"):
        asyncio.run(Kokoro(str(tmp_path), "cpu", 1).start())
