import asyncio
import random
import time

import pytest

from deployments.interfaces import Guess, SpeechOptions, Utterance
from deployments.transcriber.twin import Twin


def recognize(pcm: bytes, cuts: list[int] | None = None, **args: float) -> tuple[list[str], Guess]:
    """The words of an utterance fed in pieces, and its final."""

    async def go() -> list[Guess]:
        twin = Twin(**{"latency_ms": 1, "words_per_second": 2, "error_rate": 0, "seed": 0, **args})  # type: ignore[arg-type]
        guesses: list[Guess] = []
        await twin.start(guesses.extend)
        begin = 0
        for end in [*(cuts or []), len(pcm)]:
            await twin.feed([Utterance("u", pcm[begin:end], end == len(pcm), SpeechOptions())])
            begin = end
        while not (guesses and guesses[-1].final):
            await asyncio.sleep(0.001)
        return guesses

    words: list[str] = []
    guesses = asyncio.run(go())
    for guess in guesses:
        words[guess.keep :] = [word.text for word in guess.words]
    return words, guesses[-1]


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
