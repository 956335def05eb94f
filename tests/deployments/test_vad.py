import asyncio
import random

import pytest

from deployments.interfaces import Edge, Endpoint, LaneLost, Resume, Transition, VadInput, VadResult
from deployments.vad import FRAME_SAMPLES, Endpointing, Vad

BEGIN = Resume(0, False, Endpoint())


def play(flags: str, speaking: bool = False) -> list[Transition]:
    """One letter a frame: V voiced, - not."""
    endpointing = Endpointing(Resume(0, speaking, Endpoint(2, 60, 100)))
    return [t for flag in flags if (t := endpointing.on(flag == "V"))]


def frames(*counts: int) -> list[int]:
    return [count * FRAME_SAMPLES for count in counts]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("----------", []),
        ("VV-VV-VV-V", []),
        ("--VVV", [Transition(Edge.START, frames(2)[0])]),
        ("VVV----V----V", [Transition(Edge.START, 0)]),
        ("-VVV-----", [Transition(Edge.START, frames(1)[0]), Transition(Edge.END, frames(9)[0])]),
        (
            "VVV-----VVV",
            [Transition(Edge.START, 0), *map(Transition, [Edge.END, Edge.START], frames(8, 8))],
        ),
    ],
)
def test_speech_begins_and_ends_after_enough_frames_of_each(
    flags: str, expected: list[Transition]
) -> None:
    assert play(flags) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("VVV--V", "start pause resume"),
        ("VVVVVV", "start confirmed"),
        ("VVVVV--VVV----V-----", "start confirmed pause resume pause resume pause end"),
        ("VVV--V--V--V", "start pause resume pause resume pause resume"),
        ("VVV--V--V--VV", "start pause resume pause resume pause resume confirmed"),
    ],
)
def test_a_pause_a_resumption_and_more_than_a_cough(flags: str, expected: str) -> None:
    """Pauses after two frames of silence, is confirmed after five of voice."""
    endpointing = Endpointing(Resume(0, False, Endpoint(2, 60, 100, 40, 100)))
    told = [t.edge.value for flag in flags if (t := endpointing.on(flag == "V"))]
    assert " ".join(told) == expected


def test_endpointing_resumed_in_speech_only_ends() -> None:
    assert play("VV-----", speaking=True) == [Transition(Edge.END, 7 * FRAME_SAMPLES)]


def hear(pcm: bytes, cuts: list[int]) -> list[VadResult]:
    async def go() -> list[VadResult]:
        vad = Vad()
        await anext(vad.listen("lane"))
        out: list[VadResult] = []
        begin = 0
        for number, end in enumerate([*cuts, len(pcm)]):
            resume = None if number else BEGIN
            out += await vad.exchange("lane", [VadInput(7, pcm[begin:end], resume)], [])
            begin = end
        return out

    return asyncio.run(go())


def transitions(judged: list[VadResult]) -> list[Transition]:
    return [t for answer in judged for t in answer.transitions]


def test_speech_is_found_in_its_place(speech: bytes) -> None:
    started, ended = transitions(hear(speech, []))
    assert started.edge is Edge.START and 0.7 * 16_000 < started.sample < 0.95 * 16_000
    assert ended.edge is Edge.END and ended.sample > started.sample + 2 * 16_000


def test_the_cut_of_the_audio_does_not_matter(speech: bytes) -> None:
    cuts = sorted(random.Random(1).sample(range(0, len(speech), 2), 60))
    judged = hear(speech, cuts)
    assert transitions(judged) == transitions(hear(speech, []))
    assert judged[-1].until == len(speech) // 2


def test_silence_is_not_speech() -> None:
    assert transitions(hear(bytes(64_000), [])) == []


def test_a_session_that_did_not_begin_here_is_refused() -> None:
    async def go() -> None:
        vad = Vad()
        await anext(vad.listen("lane"))
        with pytest.raises(LaneLost):
            await vad.exchange("lane", [VadInput(1, bytes(640))], [])

    asyncio.run(go())


def test_a_session_that_left_is_forgotten() -> None:
    async def go() -> None:
        vad = Vad()
        await anext(vad.listen("lane"))
        await vad.exchange("lane", [VadInput(1, b"", BEGIN), VadInput(2, b"", BEGIN)], [])
        await vad.exchange("lane", [], [1])
        await vad.exchange("lane", [VadInput(2, bytes(640))], [])
        with pytest.raises(LaneLost):
            await vad.exchange("lane", [VadInput(1, bytes(640))], [])

    asyncio.run(go())
