import asyncio
import random
import time
from typing import Any

import pytest

from deployments.interfaces import EngineHypothesis, SpeechOptions, Utterance
from deployments.transcriber.sim import SimTranscriber
from tests.waiting import until


def recognize(
    pcm: bytes, cuts: list[int] | None = None, **args: float
) -> tuple[list[str], EngineHypothesis]:
    """The words of an utterance fed in pieces, and its final."""

    async def go() -> list[EngineHypothesis]:
        values: Any = {"latency_ms": 1, "words_per_second": 2, "error_rate": 0, "seed": 0, **args}
        sim = SimTranscriber(**values)
        hypotheses: list[EngineHypothesis] = []
        await sim.start(hypotheses.extend)
        begin = 0
        for end in [*(cuts or []), len(pcm)]:
            await sim.feed([Utterance("u", pcm[begin:end], end == len(pcm), SpeechOptions())])
            begin = end
        await until(lambda: hypotheses and hypotheses[-1].final)
        return hypotheses

    words: list[str] = []
    hypotheses = asyncio.run(go())
    for hypothesis in hypotheses:
        words[hypothesis.keep :] = [word.text for word in hypothesis.words]
    return words, hypotheses[-1]


NOISE = random.Random(0).randbytes(3 * 32_000)


def test_words_come_in_proportion_to_the_speech() -> None:
    assert [len(recognize(NOISE[: s * 32_000])[0]) for s in (1, 2, 3)] == [2, 4, 6]


def test_the_same_audio_and_seed_give_the_same_words_however_cut() -> None:
    whole, _ = recognize(NOISE)
    cuts = sorted(random.Random(2).sample(range(0, len(NOISE), 2), 40))
    assert recognize(NOISE, cuts)[0] == whole


def test_other_audio_or_another_seed_gives_other_words() -> None:
    whole, _ = recognize(NOISE)
    assert recognize(NOISE, seed=1)[0] != whole
    assert recognize(NOISE[::-1])[0] != whole


def test_it_answers_after_its_latency() -> None:
    began = time.monotonic()
    recognize(NOISE, latency_ms=120)
    assert 0.115 < time.monotonic() - began < 0.5


@pytest.mark.parametrize(("rate", "fails"), [(0, False), (1, True)])
def test_it_fails_as_often_as_it_says(rate: float, fails: bool) -> None:
    assert (recognize(NOISE, error_rate=rate)[1].failure is not None) is fails
