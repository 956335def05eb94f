"""The embedded recogniser, for real."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from deployments.interfaces import EngineHypothesis, SpeechOptions, Utterance
from deployments.transcriber.pocketsphinx import PocketSphinx
from deployments.transcriber.sphinx_decoder import jsgf
from loadtest.speech import speak
from tests.server import children

pytestmark = pytest.mark.models

ORDERS = ("turn on the light", "open the window", "call my mother", "play some music")
GRAMMAR = SpeechOptions(hotwords=ORDERS)


def engine(test: Callable[[PocketSphinx, list[EngineHypothesis]], Any], decoders: int = 2) -> None:
    async def go() -> None:
        sphinx = PocketSphinx(decoders)
        hypotheses: list[EngineHypothesis] = []
        await sphinx.start(hypotheses.extend)
        try:
            await test(sphinx, hypotheses)
        finally:
            await sphinx.stop()

    asyncio.run(go())


async def final(hypotheses: list[EngineHypothesis], key: object) -> EngineHypothesis:
    async with asyncio.timeout(60):
        while True:
            for hypothesis in hypotheses:
                if hypothesis.key == key and hypothesis.final:
                    return hypothesis
            await asyncio.sleep(0.01)


async def say(
    sphinx: PocketSphinx, key: object, text: str, options: SpeechOptions = GRAMMAR, end: bool = True
) -> None:
    pcm = speak(text, words_per_minute=140).tobytes()
    for at in range(0, len(pcm), 6400):
        last = at + 6400 >= len(pcm)
        await sphinx.feed([Utterance(key, pcm[at : at + 6400], last and end, options)])
        await asyncio.sleep(0)


def text(hypothesis: EngineHypothesis) -> str:
    return " ".join(word.text for word in hypothesis.words)


def test_hotwords_make_it_exact() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        for number, order in enumerate(ORDERS):
            await say(sphinx, number, order)
            assert text(await final(hypotheses, number)) == order

    engine(test)


def test_words_have_places_and_confidences() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, "u", ORDERS[0])
        words = (await final(hypotheses, "u")).words
        assert all(0 <= word.start < word.end for word in words)
        assert [word.start for word in words] == sorted(word.start for word in words)
        assert all(0 <= word.confidence <= 1 for word in words)

    engine(test)


def test_the_open_vocabulary_gives_partials_and_real_words() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        weather = "the weather will be sunny and warm tomorrow"
        await say(sphinx, "u", weather, SpeechOptions(), end=False)
        async with asyncio.timeout(60):
            while not any(hypothesis.words for hypothesis in hypotheses):
                await asyncio.sleep(0.01)
        await sphinx.feed([Utterance("u", b"", True, SpeechOptions())])
        said = text(await final(hypotheses, "u")).split()
        assert {"the", "weather", "sunny", "warm", "tomorrow"} & set(said)

    engine(test)


def test_two_utterances_decode_at_once() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, "open", ORDERS[0], end=False)  # holds its decoder
        await say(sphinx, "other", ORDERS[1])
        assert text(await final(hypotheses, "other")) == ORDERS[1]
        await sphinx.feed([Utterance("open", b"", True, GRAMMAR)])
        assert text(await final(hypotheses, "open")) == ORDERS[0]

    engine(test)


def test_more_utterances_than_decoders_wait_and_lose_nothing() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        for number, order in enumerate(ORDERS):
            await say(sphinx, number, order)
        assert [text(await final(hypotheses, n)) for n in range(4)] == list(ORDERS)

    engine(test, decoders=1)


def decoders() -> list[psutil.Process]:
    return children("sphinx_decoder")


def test_a_decoder_killed_in_mid_utterance_costs_time_only() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, "u", ORDERS[2], end=False)
        await asyncio.sleep(0.1)
        decoders()[0].kill()
        await sphinx.feed([Utterance("u", b"", True, GRAMMAR)])
        assert text(await final(hypotheses, "u")) == ORDERS[2]

    engine(test)


def test_a_grammar_that_does_not_parse_fails_its_utterance_only() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, "bad", "hello", SpeechOptions(grammar="this is no grammar"))
        failed = await final(hypotheses, "bad")
        assert failed.failure and "JSGF" in failed.failure
        await say(sphinx, "good", ORDERS[0])
        assert text(await final(hypotheses, "good")) == ORDERS[0]

    engine(test)


def test_a_forgotten_utterance_frees_its_decoder() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, "gone", ORDERS[0], end=False)
        await sphinx.forget(["gone"])
        await say(sphinx, "next", ORDERS[1])
        assert text(await final(hypotheses, "next")) == ORDERS[1]
        assert not [
            hypothesis for hypothesis in hypotheses if hypothesis.key == "gone" and hypothesis.final
        ]

    engine(test, decoders=1)


def test_no_process_is_left_behind() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, "u", ORDERS[0])
        await final(hypotheses, "u")

    engine(test)
    began = time.monotonic()
    while decoders():
        assert time.monotonic() - began < 2
        time.sleep(0.02)


def test_hotwords_as_a_grammar() -> None:
    assert "( go home ) | ( stop )" in jsgf(("Go home", "stop"))
