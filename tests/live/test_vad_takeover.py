"""A VAD replica is lost anywhere, and another one goes on: the same utterances."""

import asyncio
from typing import Any

from deployments.interfaces import RATE, VadInput, VadResult
from deployments.lanes import Lane
from deployments.vad import Vad
from serve_app.config import Limits
from serve_app.live.events import (
    AudioReceived,
    DetectSpeech,
    Fact,
    Listening,
    SpeechBoundary,
    VadAttached,
)
from serve_app.live.session import Session

CHUNK_BYTES = 3200
EVERY = 7 * CHUNK_BYTES
"""Between the places that are tried: in speech, at its ends, and in silence."""

TOLERANCE = RATE // 10


class Ears:
    """A session and the real VAD."""

    def __init__(self) -> None:
        self.session = Session(Limits(), Listening(), now=0.0)
        self.boundaries: list[SpeechBoundary] = []
        self.attach()

    def attach(self) -> None:
        """A VAD that knows nothing takes over."""
        self.vad = Vad()
        self.lane: Lane[Any, VadResult] = Lane("lane", 0)
        self.do(VadAttached())

    def do(self, fact: Fact) -> None:
        for order in self.session.on(fact, 0.0):
            if isinstance(order, SpeechBoundary):
                self.boundaries.append(order)
            elif isinstance(order, DetectSpeech):
                self.do(self.judged(VadInput(0, order.pcm, order.resume)))

    def judged(self, piece: VadInput) -> VadResult:
        (result,) = asyncio.run(self.vad.take(self.lane, [piece]))
        return result


def heard(pcm: bytes, lost_at: int = -1) -> list[SpeechBoundary]:
    ears = Ears()
    for at in range(0, len(pcm), CHUNK_BYTES):
        if at == lost_at:
            ears.attach()
        ears.do(AudioReceived(pcm[at : at + CHUNK_BYTES]))
    return ears.boundaries


def test_another_vad_finds_the_same_utterances(talk: bytes) -> None:
    unbroken = heard(talk)
    assert len(unbroken) == 8
    for lost_at in range(CHUNK_BYTES, len(talk), EVERY):
        found = heard(talk, lost_at)
        assert [it.started for it in found] == [it.started for it in unbroken], lost_at
        for one, other in zip(found, unbroken, strict=True):
            assert abs(one.sample - other.sample) <= TOLERANCE, lost_at
