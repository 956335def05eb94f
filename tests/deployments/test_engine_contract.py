"""The contract of engines, over those that come in wheels."""

from collections.abc import Iterator
from typing import Any

import pytest

from deployments.chat.eliza import Eliza
from deployments.chat.sim import SimChat
from deployments.interfaces import Option, Options, options_of
from deployments.speaker.espeak import Espeak
from deployments.speaker.sim import SimSpeaker
from deployments.transcriber.pocketsphinx import PocketSphinx
from deployments.transcriber.sim import SimTranscriber
from loadtest.speech import SENTENCES, speak
from serve_app.engines import ENGINES
from tests.engine_contract import (
    CHAT_OPTIONS,
    SPEAKER_OPTIONS,
    SPEECH_OPTIONS,
    ChatContract,
    Heard,
    Loop,
    SpeakerContract,
    TranscriberContract,
    hearing,
    loop,
    serving,
)

__all__ = ["loop"]


class TestSimTranscriber(TranscriberContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop) -> Iterator[Heard]:
        yield from hearing(loop, SimTranscriber(10.0, 2.5, 0.0, 0))


@pytest.mark.models
class TestPocketSphinx(TranscriberContract):
    @staticmethod
    def speech(seconds: float, seed: int = 0) -> bytes:
        pcm = speak(SENTENCES[seed % len(SENTENCES)]).tobytes()
        whole = int(seconds * 16_000) * 2
        return (pcm * (whole // len(pcm) + 1))[:whole]

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop) -> Iterator[Heard]:
        yield from hearing(loop, PocketSphinx(4))


class TestEliza(ChatContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop) -> Iterator[Any]:
        yield from serving(loop, Eliza())


class TestSimChat(ChatContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop) -> Iterator[Any]:
        yield from serving(loop, SimChat(1.0, 1.0, 1000))


@pytest.mark.models
class TestEspeak(SpeakerContract):
    close = None  # its noise is never the same twice

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop) -> Iterator[Any]:
        yield from serving(loop, Espeak())


class TestSimSpeaker(SpeakerContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop) -> Iterator[Any]:
        yield from serving(loop, SimSpeaker(1.0, 2.5, 10.0))


@pytest.mark.parametrize(
    ("kind", "possible"),
    [
        ("transcriber", SPEECH_OPTIONS),
        ("chat", CHAT_OPTIONS),
        ("speaker", SPEAKER_OPTIONS),
        ("diarizer", frozenset({Option.SPEAKERS})),
    ],
)
def test_every_engine_declares_options_of_its_kind(kind: str, possible: Options) -> None:
    for engine in ENGINES[kind].values():
        assert "options" in vars(engine) and options_of(engine) <= possible


def test_an_engine_that_declares_nothing_supports_nothing_optional() -> None:
    assert options_of(object()) == frozenset()
