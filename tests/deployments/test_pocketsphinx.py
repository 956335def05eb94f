"""The embedded recogniser, for real."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from websockets.asyncio.client import connect

from deployments.child import Child
from deployments.interfaces import EngineFailed, EngineHypothesis, SpeechOptions, Utterance
from deployments.transcriber import Transcriber
from deployments.transcriber.pocketsphinx import PocketSphinx, _Process
from deployments.transcriber.sphinx_decoder import Piece, jsgf
from loadtest.speech import speak
from tests.api.sockets.test_realtime import Client
from tests.fakes import LocalReplicaSet, models, served
from tests.server import children
from tests.waiting import until, wait_for
from tests.word_error import word_error_rate

pytestmark = pytest.mark.models

ORDERS = ("turn on the light", "open the window", "call my mother", "play some music")
GRAMMAR = SpeechOptions(hotwords=ORDERS)


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def engine(
    test: Callable[[PocketSphinx, list[EngineHypothesis]], Any],
    decoders: int = 2,
    loop: str = "asyncio",
) -> None:
    async def go() -> None:
        sphinx = PocketSphinx(decoders)
        hypotheses: list[EngineHypothesis] = []
        await sphinx.start(hypotheses.extend)
        try:
            await test(sphinx, hypotheses)
        finally:
            await sphinx.stop()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(go())


async def final(hypotheses: list[EngineHypothesis], key: object) -> EngineHypothesis:
    def found() -> list[EngineHypothesis]:
        return [it for it in hypotheses if it.key == key and it.final]

    return (await until(found, 60))[0]


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
        heard = []
        for number, sentence in enumerate(SENTENCES):
            await say(sphinx, number, sentence, SpeechOptions(), end=False)
            await until(partial(has_words, hypotheses, number), 60)
            await sphinx.feed([Utterance(number, b"", True, SpeechOptions())])
            heard.append(text(await final(hypotheses, number)))
        assert word_error_rate(" ".join(SENTENCES), " ".join(heard)) < 0.8  # 0.5 to 0.65

    engine(test)


def has_words(hypotheses: list[EngineHypothesis], key: object) -> bool:
    return any(it.key == key and it.words for it in hypotheses)


SENTENCES = (
    "she opened the window and listened to the rain for a while",
    "the weather will be sunny and warm tomorrow",
    "how many people can one machine serve",
    "please call me a taxi in the morning",
)
HOUSE = """#JSGF V1.0; grammar house;
public <order> = <verb> the <thing> [in the <room>] [<when>];
<verb> = open | close | turn on | turn off;
<thing> = window | door | light | radio | heating;
<room> = kitchen | bedroom | living room;
<when> = now | tomorrow | in ten minutes;
"""
HOUSE_ORDERS = (
    "open the window in the kitchen now",
    "turn off the light in ten minutes",
    "close the door tomorrow",
    "turn on the heating in the bedroom",
    "turn on the radio",
)


def test_with_a_grammar_few_words_are_wrong() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        heard = []
        for number, order in enumerate(HOUSE_ORDERS):
            await say(sphinx, number, order, SpeechOptions(grammar=HOUSE))
            heard.append(text(await final(hypotheses, number)))
        assert word_error_rate(" ".join(HOUSE_ORDERS), " ".join(heard)) < 0.3  # 0.07 to 0.2

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


async def killed(process: psutil.Process) -> None:
    """Dead, as `kill -9` leaves it; reaping it is the event loop's business."""
    process.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        async with asyncio.timeout(10):
            while process.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0)


async def heard_all(hypotheses: list[EngineHypothesis], pcm: bytes) -> None:
    await until(lambda: hypotheses and hypotheses[-1].until >= len(pcm) // 2, 60)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("between", [True, False], ids=["between answers", "in mid-answer"])
def test_a_decoder_killed_in_mid_utterance_costs_time_only(loop: str, between: bool) -> None:
    pcm = speak(ORDERS[2], words_per_minute=140).tobytes()

    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        for number in range(3):
            hypotheses.clear()
            await sphinx.feed([Utterance(number, pcm, False, GRAMMAR)])
            if between:
                await heard_all(hypotheses, pcm)
            else:
                await asyncio.sleep(0.02)  # it decodes for longer, and does not tell
            await killed(decoders()[0])
            await sphinx.feed([Utterance(number, b"", True, GRAMMAR)])
            told = await final(hypotheses, number)
            assert told.failure is None and text(told) == ORDERS[2]

    engine(test, loop=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_decoders_that_died_while_free_cost_no_utterance(loop: str) -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        for number in range(3):
            await say(sphinx, number, ORDERS[number], end=False)
        for number in range(3):
            await sphinx.feed([Utterance(number, b"", True, GRAMMAR)])
            await final(hypotheses, number)
        for process in decoders():
            await killed(process)
        await say(sphinx, "next", ORDERS[1])
        assert text(await final(hypotheses, "next")) == ORDERS[1]

    engine(test, decoders=3, loop=loop)


def test_a_decoder_that_freezes_costs_a_few_seconds_only() -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        await say(sphinx, 0, ORDERS[2], end=False)
        (frozen,) = decoders()
        frozen.suspend()
        began = time.monotonic()
        await sphinx.feed([Utterance(0, b"", True, GRAMMAR)])
        assert text(await final(hypotheses, 0)) == ORDERS[2]
        assert time.monotonic() - began < 5
        assert not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE

    engine(test)


@pytest.mark.parametrize("options", [GRAMMAR, SpeechOptions(interim_results=False)])
def test_an_utterance_without_audio_leaves_the_decoder_alive(options: SpeechOptions) -> None:
    async def test(sphinx: PocketSphinx, hypotheses: list[EngineHypothesis]) -> None:
        (before,) = decoders()
        for number in range(2):
            await sphinx.feed([Utterance(number, b"", True, options)])
            told = await final(hypotheses, number)
            assert told.failure is None and told.words == ()
        assert decoders() == [before]

    engine(test)


@pytest.mark.parametrize(
    "code",
    [
        "out.write(frame(b'not msgpack'))",
        "out.write(frame(msgspec.msgpack.encode([[['a', 'b', 0, 1.0]], None])))",
        "out.write(b'\\xff' * 8)",
    ],
    ids=["garbage", "wrong types", "4 GiB announced"],
)
def test_what_a_hostile_decoder_says_is_data_or_nothing(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"""
import msgspec, sys
from deployments.framing import frame
def main():
    out = sys.stdout.buffer
    out.write(frame(b"ready")); out.flush()
    sys.stdin.buffer.read(1)
    {code}; out.flush()
    sys.stdin.buffer.read()
"""
    (tmp_path / "hostile_decoder.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    async def go() -> None:
        child, _ = await Child.start("hostile decoder", "hostile_decoder", 30.0)
        try:
            with pytest.raises(EngineFailed, match="invalid answer"):
                async with asyncio.timeout(10):
                    await _Process(child).ask(Piece(None, b"", None))
        finally:
            await child.stop()

    asyncio.run(go())


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
    wait_for(lambda: not decoders(), 2)


def test_hotwords_become_a_grammar_of_alternatives() -> None:
    assert "( go home ) | ( stop )" in jsgf(("Go home", "stop"))


def test_a_commit_without_audio_is_answered_and_the_engine_goes_on(speech: bytes) -> None:
    sphinx = LocalReplicaSet(sphinx=Transcriber(PocketSphinx(1)))
    given = models(transcriber=sphinx, engine="pocketsphinx", revises=True)

    async def go(address: str) -> None:
        async with connect(f"ws://{address}/v1/realtime") as socket:
            client = Client(socket)
            await client.until("session.created")
            await client.update(audio={"input": {"turn_detection": None}})
            await client.send("input_audio_buffer.commit")
            assert await client.error() == "input_audio_buffer_commit_empty"
        async with connect(f"ws://{address}/v1/realtime") as socket:
            client = Client(socket)
            await client.until("session.created")
            await client.send("session.update", model="voxtral")  # vLLM's dialect
            await client.send("input_audio_buffer.commit", final=True)
            assert (await client.until("transcription.done", 60))["text"] == ""
            await client.speak(speech)
            await client.send("input_audio_buffer.commit", final=True)
            assert "tomorrow" in (await client.until("transcription.done", 60))["text"]

    with served(given=given) as address:
        asyncio.run(go(address))
    assert not decoders()
