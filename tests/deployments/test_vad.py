import asyncio
import random

import numpy as np
import pytest

from deployments.interfaces import (
    RECALL,
    Edge,
    Endpoint,
    LaneLost,
    Resume,
    Transition,
    VadInput,
    VadResult,
)
from deployments.vad import FRAME_SAMPLES, Endpointing, Vad, endpointing

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


def hear(pcm: bytes, cuts: list[int], begin_at: Resume = BEGIN) -> list[VadResult]:
    async def go() -> list[VadResult]:
        vad = Vad()
        await anext(vad.listen("lane"))
        out: list[VadResult] = []
        begin = 0
        for number, end in enumerate([*cuts, len(pcm)]):
            resume = None if number else begin_at
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


RESTS = {Edge.END, Edge.REST}


def test_silence_has_a_rest_every_five_seconds() -> None:
    endpointing = Endpointing(Resume(0, False, Endpoint()))
    told = [t for frame in range(1001) if (t := endpointing.on(frame == 400))]
    assert told == [Transition(Edge.REST, seconds * 16_000) for seconds in (5, 10, 15, 20)]
    noisy = Endpointing(Resume(0, False, Endpoint()))
    rests = [t for frame in range(2000) if (t := noisy.on(frame % 4 != 0 and frame % 4 != 3))]
    assert rests and all(t.sample // FRAME_SAMPLES % 4 in (0, 1) for t in rests)


def noisy_talk(talk: bytes) -> bytes:
    noise = np.random.default_rng(1).normal(0, 40, 2 * len(talk) // 2 + 16_000 * 7)
    clean = np.concatenate([np.frombuffer(talk, "<i2")] * 2 + [np.zeros(16_000 * 7, np.int16)])
    return (clean + noise[: len(clean)]).astype("<i2").tobytes()


def test_from_where_it_starts_afresh_another_vad_judges_alike(talk: bytes) -> None:
    """The real one, which adapts to noise: frame by frame, at every end and rest."""
    pcm = noisy_talk(talk)
    whole = transitions(hear(pcm, []))
    ends = [t.sample for t in whole if t.edge in RESTS]
    assert len(ends) >= 9
    for end in ends:
        listen = max(0, end - RECALL)
        resume = Resume(listen, False, Endpoint(), end)
        again = transitions(hear(pcm[listen * 2 :], [1000, 40_000], resume))
        assert again == [t for t in whole if t.sample > end]


def test_within_speech_it_nearly_does(talk: bytes) -> None:
    pcm = noisy_talk(talk)
    whole = transitions(hear(pcm, []))
    cut = whole[0].sample + 16_000
    assert whole[1].sample > cut
    listen = max(0, cut // FRAME_SAMPLES * FRAME_SAMPLES - 3 * 16_000)
    again = transitions(hear(pcm[listen * 2 :], [], Resume(listen, True, Endpoint(), cut)))
    rest = [t for t in whole if t.sample > cut]
    assert [t.edge for t in again] == [t.edge for t in rest]
    assert all(
        abs(a.sample - b.sample) <= 2 * FRAME_SAMPLES for a, b in zip(again, rest, strict=True)
    )


def test_silence_before_a_cut_counts_towards_the_end_of_speech() -> None:
    told = endpointing(Resume(0, True, Endpoint(2, 60, 100), 4 * FRAME_SAMPLES))
    assert [told.on(flag == "V") for flag in "V---"] == [None] * 4
    assert told.on(False) is None and told.on(False) == Transition(Edge.END, 6 * FRAME_SAMPLES)


def test_the_run_before_a_cut_ends_nothing_by_itself() -> None:
    told = endpointing(Resume(0, True, Endpoint(2, 60, 100), 9 * FRAME_SAMPLES))
    assert not any(told.on(False) for _ in range(9))
    assert told.on(False) == Transition(Edge.END, 10 * FRAME_SAMPLES)
