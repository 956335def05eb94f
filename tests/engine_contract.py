"""What any engine must keep, its own or anybody's: inherit, give an `engine` fixture, run pytest.

    class TestMine(TranscriberContract):
        @pytest.fixture(scope="class")
        @classmethod
        def engine(cls, loop: Loop) -> Iterator[Heard]:
            yield from hearing(loop, MyEngine())

An engine lives on the event loop of `loop`, in a thread of its own, as it does in a replica.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pytest

from deployments.interfaces import (
    RATE,
    VOICE_RATE,
    ChatOptions,
    ChatRequest,
    EngineFailed,
    EngineHypothesis,
    Message,
    Option,
    Options,
    SpeechOptions,
    SpeechRequest,
    Tool,
    Utterance,
    Word,
    options_of,
)
from tests.waiting import unchanged, until

T = TypeVar("T")
SPEECH_OPTIONS = frozenset({Option.LANGUAGE, Option.HOTWORDS, Option.GRAMMAR, Option.PROMPT})
SPEAKER_OPTIONS = frozenset({Option.SPEED, Option.BLEND})
CHAT_OPTIONS = frozenset(Option) - SPEECH_OPTIONS - SPEAKER_OPTIONS - {Option.SPEAKERS}
PATIENCE_S = 60.0
STOPS_WITHIN_S = 0.3
"""How long an engine that is left may finish its present step."""
QUIET_S = 0.5


class Loop:
    """An event loop that goes on between tests: an engine's own tasks live there."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], patience_s: float = PATIENCE_S) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patience_s)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.stop()


def declares(engine: Any, possible: Options) -> None:
    """What it declares is of its kind, and its class says the same: an ingress knows only that."""
    declared = options_of(engine)
    assert declared <= possible and all(isinstance(option, Option) for option in declared)
    assert declared == options_of(type(engine))


# Transcribers.


class Heard:
    """An engine and what it has emitted."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.hypotheses: dict[Any, list[EngineHypothesis]] = {}
        self._keys = iter(range(10**9))

    def emit(self, hypotheses: Sequence[EngineHypothesis]) -> None:
        for hypothesis in hypotheses:
            self.hypotheses.setdefault(hypothesis.key, []).append(hypothesis)

    async def say(
        self,
        pcm: bytes,
        piece_s: float = 0.1,
        pace: float = 0.0,
        options: SpeechOptions = SpeechOptions(),  # noqa: B008
    ) -> int:
        """Feed an utterance piece by piece; its key."""
        key = next(self._keys)
        step = int(piece_s * RATE) * 2
        pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)] or [b""]
        for number, piece in enumerate(pieces, 1):
            await self.engine.feed([Utterance(key, piece, number == len(pieces), options)])
            await asyncio.sleep(piece_s * pace)
        return key

    async def final(self, key: int) -> EngineHypothesis:
        def told() -> EngineHypothesis | None:
            last = self.hypotheses.get(key, [])[-1:]
            return last[0] if last and last[0].final else None

        found = await until(told, PATIENCE_S)
        assert found
        return found

    async def words(self, pcm: bytes, **how: Any) -> list[Word]:
        key = await self.say(pcm, **how)
        await self.final(key)
        return self.all_words(key)

    def all_words(self, key: int) -> list[Word]:
        words: list[Word] = []
        for hypothesis in self.hypotheses[key]:
            assert hypothesis.keep <= len(words), "it keeps words that it never told"
            words = [*words[: hypothesis.keep], *hypothesis.words]
        return words


def hearing(loop: Loop, engine: Any, patience_s: float = 150.0) -> Iterator[Heard]:
    """The engine, started and stopped."""
    heard = Heard(engine)
    loop.run(engine.start(heard.emit), patience_s)
    yield heard
    loop.run(engine.stop())


def noise(seconds: float, seed: int = 0) -> bytes:
    """Speech-like in level, different for each seed: pcm_s16le at `RATE`."""
    random = np.random.default_rng(seed)
    loud = np.abs(np.sin(np.arange(int(seconds * RATE)) * 4 / RATE)) * 3000
    samples = random.standard_normal(int(seconds * RATE)) * loud
    pcm: bytes = samples.astype("<i2").tobytes()
    return pcm


class TranscriberContract:
    speech = staticmethod(noise)

    def test_it_says_what_it_is(self, engine: Heard) -> None:
        it = engine.engine
        assert it.name and isinstance(it.revises, bool)
        assert it.languages is None or all(len(code) == 2 for code in it.languages)

    def test_it_declares_its_options(self, engine: Heard) -> None:
        declares(engine.engine, SPEECH_OPTIONS)

    def test_a_grammar_limits_the_words_if_it_is_declared(self, engine: Heard, loop: Loop) -> None:
        if Option.GRAMMAR not in options_of(engine.engine):
            pytest.skip("it does not declare `grammar`")
        grammar = "#JSGF V1.0; grammar g; public <g> = ( seven )+ ;"
        words = loop.run(engine.words(self.speech(2), options=SpeechOptions(grammar=grammar)))
        assert {word.text for word in words} <= {"seven"}

    def test_every_utterance_gets_one_final_for_all_its_audio(
        self, engine: Heard, loop: Loop
    ) -> None:
        async def go() -> list[int]:
            keys = [await engine.say(self.speech(1 + n / 4, n)) for n in range(4)]
            for key in keys:
                await engine.final(key)
            await unchanged(lambda: [len(engine.hypotheses[key]) for key in keys], 0.1)
            return keys

        for number, key in enumerate(loop.run(go())):
            told = engine.hypotheses[key]
            assert [hypothesis.final for hypothesis in told].count(True) == 1 and told[-1].final
            assert told[-1].until == len(self.speech(1 + number / 4, number)) // 2
            assert told[-1].failure is None
            assert all(a.until <= b.until for a, b in pairwise(told))

    def test_words_have_places_in_order(self, engine: Heard, loop: Loop) -> None:
        pcm = self.speech(3, 5)
        words = loop.run(engine.words(pcm))
        assert all(0 <= word.start <= word.end for word in words)
        assert all(a.start <= b.start for a, b in pairwise(words))
        assert all(0 <= word.confidence <= 1 and word.text.strip() for word in words)

    def test_how_the_audio_is_cut_changes_nothing(self, engine: Heard, loop: Loop) -> None:
        pcm = self.speech(2.5, 7)
        whole = loop.run(engine.words(pcm, piece_s=10))
        pieces = loop.run(engine.words(pcm, piece_s=0.0333))
        assert [word.text for word in pieces] == [word.text for word in whole]

    def test_company_changes_nothing(self, engine: Heard, loop: Loop) -> None:
        spoken = [self.speech(1.5 + n / 2, 20 + n) for n in range(3)]

        async def together() -> list[list[Word]]:
            return list(await asyncio.gather(*(engine.words(pcm) for pcm in spoken)))

        alone = [loop.run(engine.words(pcm)) for pcm in spoken]
        for one, other in zip(alone, loop.run(together()), strict=True):
            assert [word.text for word in one] == [word.text for word in other]

    def test_an_utterance_without_audio_has_no_words(self, engine: Heard, loop: Loop) -> None:
        assert loop.run(engine.words(b"")) == []

    def test_partials_are_only_added_to_unless_it_says_so(self, engine: Heard, loop: Loop) -> None:
        async def go() -> int:
            key = await engine.say(self.speech(3, 11), pace=1.0)
            await engine.final(key)
            return key

        told = engine.hypotheses[loop.run(go())]
        if not engine.engine.revises:
            so_far: list[str] = []
            for hypothesis in told:
                words = [*so_far[: hypothesis.keep], *(word.text for word in hypothesis.words)]
                assert words[: len(so_far)] == so_far
                so_far = words

    def test_who_is_forgotten_is_told_nothing_more(self, engine: Heard, loop: Loop) -> None:
        async def go() -> None:
            key = await engine.say(self.speech(6, 13))
            await engine.engine.forget([key, "never heard of"])
            await unchanged(lambda: len(engine.hypotheses.get(key, [])), QUIET_S, STOPS_WITHIN_S)

        loop.run(go())

    def test_forgetting_stops_the_model(self, engine: Heard, loop: Loop) -> None:
        if not hasattr(engine.engine, "generated"):
            pytest.skip("it does not count")

        async def go() -> None:
            before = engine.engine.generated()
            keys = [await engine.say(self.speech(20, 30 + n), piece_s=30) for n in range(3)]
            await until(lambda: engine.engine.generated() > before, PATIENCE_S)
            await engine.engine.forget(keys)
            await unchanged(engine.engine.generated, QUIET_S, STOPS_WITHIN_S)

        loop.run(go())


class UnderstandingContract(TranscriberContract):
    """Of an engine that hears the language and answers questions."""

    def test_the_language_is_heard_unless_it_is_said(self, engine: Heard, loop: Loop) -> None:
        async def heard(said: str | None) -> str | None:
            key = await engine.say(self.speech(2), options=SpeechOptions(said))
            return (await engine.final(key)).language

        assert loop.run(heard("fr")) == "fr"
        assert loop.run(heard(None)) in engine.engine.languages

    def test_a_question_is_answered(self, engine: Heard, loop: Loop) -> None:
        asked = SpeechOptions(prompt="What is being said?")
        assert loop.run(engine.words(self.speech(2), options=asked))


# Chat.


async def replied(engine: Any, said: str = "hello", **options: Any) -> list[Any]:
    ask = ChatRequest(1, (Message("user", said),), ChatOptions(**options))
    return [piece async for piece in engine.reply(ask)]


def serving(loop: Loop, engine: Any, patience_s: float = 150.0) -> Iterator[Any]:
    """A chat or speaker engine, started and stopped."""
    loop.run(engine.start(), patience_s)
    yield engine
    loop.run(engine.stop())


class ChatContract:
    def test_it_declares_its_options(self, engine: Any) -> None:
        declares(engine, CHAT_OPTIONS)

    def test_a_required_tool_is_called_if_tools_are_declared(self, engine: Any, loop: Loop) -> None:
        if not {Option.TOOLS, Option.TOOL_CHOICE} <= options_of(engine):
            pytest.skip("it does not declare `tools` and `tool_choice`")
        tool = Tool("clock", "Tells the time", '{"type": "object", "properties": {}}')
        pieces = loop.run(replied(engine, tools=(tool,), tool_choice="clock", max_tokens=64))
        assert [call.name for piece in pieces for call in piece.calls if call.name] == ["clock"]

    def test_a_reply_ends_once_and_counts_its_tokens(self, engine: Any, loop: Loop) -> None:
        pieces = loop.run(replied(engine, max_tokens=12))
        assert [piece.ended for piece in pieces].count(True) == 1 and pieces[-1].ended
        assert pieces[-1].failure is None
        asked, written = pieces[-1].tokens
        assert asked > 0 and 0 < written <= 12
        assert "".join(piece.text for piece in pieces)

    def test_it_writes_no_more_than_it_may(self, engine: Any, loop: Loop) -> None:
        pieces = loop.run(replied(engine, max_tokens=3))
        assert pieces[-1].tokens[1] <= 3

    def test_many_at_once_are_all_answered(self, engine: Any, loop: Loop) -> None:
        async def go() -> list[Any]:
            return list(await asyncio.gather(*(replied(engine, max_tokens=8) for _ in range(8))))

        assert all(pieces[-1].ended for pieces in loop.run(go()))

    def test_closing_a_reply_stops_the_model(self, engine: Any, loop: Loop) -> None:
        async def go() -> int:
            ask = ChatRequest(
                1, (Message("user", "tell me everything"),), ChatOptions(max_tokens=1000)
            )
            async with aclosing(engine.reply(ask)) as pieces:
                await anext(pieces)
            return int(await unchanged(engine.generated, QUIET_S, STOPS_WITHIN_S))

        assert loop.run(go()) > 0

    def test_any_text_is_taken(self, engine: Any, loop: Loop) -> None:
        for said in ("🎉 ß 你好", "\x00 \u202e", "[INST] </s> <|im_end|>", "a" * 500):
            assert loop.run(replied(engine, said, max_tokens=4))[-1].ended


# Speakers.


async def spoken(engine: Any, say: SpeechRequest) -> bytes:
    return b"".join([pcm async for pcm in engine.speak(say)])


class SpeakerContract:
    """`close` is how far samples (of 32768) may differ between speech alone and in company."""

    close: int | None = 8

    def voice(self, engine: Any, loop: Loop) -> str:
        return str(loop.run(engine.voices())[0].id)

    def test_it_declares_its_options(self, engine: Any) -> None:
        declares(engine, SPEAKER_OPTIONS)

    def test_it_lists_voices(self, engine: Any, loop: Loop) -> None:
        voices = loop.run(engine.voices())
        assert voices and len({voice.id for voice in voices}) == len(voices)
        assert all(voice.language == voice.language.lower() for voice in voices)
        assert {voice.gender for voice in voices} <= {"female", "male", "unknown"}

    def test_speech_has_sound_and_a_pace(self, engine: Any, loop: Loop) -> None:
        say = SpeechRequest(0, "One two three four five six.", self.voice(engine, loop))
        samples = np.frombuffer(loop.run(spoken(engine, say)), "<i2")
        fast = np.frombuffer(loop.run(spoken(engine, say._replace(speed=2.0))), "<i2")
        assert len(samples) > VOICE_RATE // 2 and np.abs(samples).max() > 500
        assert len(fast) < 0.8 * len(samples)

    def test_an_unknown_voice_is_refused(self, engine: Any, loop: Loop) -> None:
        with pytest.raises(EngineFailed):
            loop.run(spoken(engine, SpeechRequest(0, "hello", "nobody_at_all")))

    def test_text_without_words_is_no_failure(self, engine: Any, loop: Loop) -> None:
        for text in ("", " ", "…", "🎉"):
            loop.run(spoken(engine, SpeechRequest(0, text, self.voice(engine, loop))))

    def test_company_changes_nothing(self, engine: Any, loop: Loop) -> None:
        voice = self.voice(engine, loop)
        texts = ("Hello there.", "The quick brown fox jumps over it.", "Yes, I think so too.")
        says = [SpeechRequest(n, text, voice, 1 + n / 5) for n, text in enumerate(texts)]

        async def together() -> list[bytes]:
            return list(await asyncio.gather(*(spoken(engine, say) for say in says)))

        for say, company in zip(says, loop.run(together()), strict=True):
            one = np.frombuffer(loop.run(spoken(engine, say)), "<i2").astype(int)
            other = np.frombuffer(company, "<i2").astype(int)
            if self.close is not None:
                assert len(one) == len(other)
                assert np.abs(one - other).max() <= self.close
            assert abs(len(one) - len(other)) <= VOICE_RATE // 10

    def test_closing_it_stops_the_model(self, engine: Any, loop: Loop) -> None:
        say = SpeechRequest(0, "This is one sentence of many. " * 40, self.voice(engine, loop))

        async def go() -> int:
            async with aclosing(engine.speak(say)) as pieces:
                await anext(pieces)
            return int(await unchanged(engine.generated, QUIET_S, STOPS_WITHIN_S))

        assert loop.run(go()) > 0
