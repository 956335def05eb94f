"""Who spoke when: the embedded engine on two made voices, and lanes in front of any engine."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import numpy as np
import pytest

from deployments.diarizer import Diarizer
from deployments.diarizer.bic import Bic
from deployments.diarizer.pyannote import turns_of
from deployments.diarizer.sim import SimDiarizer
from deployments.interfaces import (
    RATE,
    DiarizationInput,
    DiarizationResult,
    EngineFailed,
    SpeakerCount,
    SpeakerTurn,
    Word,
)
from loadtest.speech import SENTENCES, speak
from serve_app.config.engines import BicConfig
from serve_app.jobs.alignment import assign, label, segments, tidied

Told = list[tuple[int, int, int]]
ANY = SpeakerCount()


def conversation(voices: list[str], turns: int) -> tuple[bytes, Told]:
    """Voices in turn with short gaps: the audio, and (speaker, start, end)."""
    gap = np.zeros(RATE // 4, np.int16)
    parts, told, at = [], [], 0
    for number in range(turns):
        speaker = number % len(voices)
        said = speak(SENTENCES[number * 3 % len(SENTENCES)], voices[speaker])
        parts += [said, gap]
        told.append((speaker, at, at + len(said)))
        at += len(said) + len(gap)
    return np.concatenate(parts).tobytes(), told


async def pieces(pcm: bytes, step: int = 32_000) -> AsyncIterator[bytes]:
    for at in range(0, len(pcm), step):
        yield pcm[at : at + step]


def diarized(pcm: bytes, speakers: SpeakerCount = ANY, step: int = 32_000) -> list[SpeakerTurn]:
    engine = Bic(BicConfig().separation)
    return list(asyncio.run(engine.diarize(pieces(pcm, step), speakers)))


def right(turns: list[SpeakerTurn], told: Told) -> float:
    """The share of words, one every 300 ms, that are given to the right speaker, the found ones
    named as they fit best."""
    words, truth = [], []
    for speaker, start, end in told:
        for at in range(start, end - 4800, 4800):
            words.append(Word("w", at, at + 4800, 1.0))
            truth.append(speaker)
    found = [it.speaker for it in assign(words, tidied(turns))]
    pairs = Counter(zip(truth, found, strict=True))
    names = {it: max(set(truth), key=lambda s: pairs[s, it]) for it in set(found)}
    return sum(names[f] == t for f, t in zip(found, truth, strict=True)) / len(truth)


@pytest.mark.parametrize("voices", [["en-us+f3", "en-gb+m3"], ["en-us", "en-us+f2"]], ids="/".join)
@pytest.mark.parametrize("speakers", [SpeakerCount(), SpeakerCount(2, 2)], ids=["unknown", "two"])
def test_two_voices_are_told_apart(voices: list[str], speakers: SpeakerCount) -> None:
    pcm, told = conversation(voices, 12)
    turns = diarized(pcm, speakers)
    assert len({turn.speaker for turn in turns}) == 2
    assert right(turns, told) > 0.9


def test_one_voice_is_one_speaker() -> None:
    pcm, _ = conversation(["en-us+f3"], 8)
    assert len({turn.speaker for turn in diarized(pcm)}) == 1


def test_how_the_audio_is_cut_into_pieces_does_not_matter() -> None:
    pcm, _ = conversation(["en-us+f3", "en-gb+m3"], 6)
    assert diarized(pcm, step=32_000) == diarized(pcm, step=6_402)


@pytest.mark.parametrize(
    "pcm", [b"", bytes(320), bytes(RATE * 20)], ids=["none", "10 ms", "silence"]
)
def test_silence_has_no_speakers(pcm: bytes) -> None:
    assert diarized(pcm) == [] and diarized(pcm, SpeakerCount(2, 2)) == []


def test_a_word_is_speech_of_somebody() -> None:
    said = speak("Hello.", "en-us").tobytes()
    turns = diarized(said, SpeakerCount(2, 2))
    assert turns and all(0 <= it.start < it.end <= len(said) for it in turns)


class Failing(SimDiarizer):
    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> list[SpeakerTurn]:
        async for _ in audio:
            raise EngineFailed("it cannot")
        return []


async def asked(
    engine: SimDiarizer, batch: list[DiarizationInput], answers: int
) -> list[DiarizationResult]:
    model = Diarizer(engine)
    lane = model.listen("lane")
    await anext(lane)
    await model.exchange("lane", batch, [])
    found: list[DiarizationResult] = []
    async with asyncio.timeout(5):
        while sum(it.final or it.failure is not None for it in found) < answers:
            found += await anext(lane)
    await model.exchange("lane", [], [voices.session for voices in batch])
    return found


def test_lanes_carry_recordings_side_by_side() -> None:
    second = bytes(RATE * 2)
    batch = [
        DiarizationInput(1, second),
        DiarizationInput(2, second * 3),
        DiarizationInput(1, second, True),
        DiarizationInput(2, b"", True),
    ]
    found = asyncio.run(asked(SimDiarizer(1.0, 2), batch, 2))
    finals = {it.session: it for it in found if it.final}
    assert finals[1].until == 2 * RATE and len(finals[1].turns) == 2
    assert finals[2].until == 3 * RATE and [it.speaker for it in finals[2].turns] == [0, 1, 0]
    assert [it.until for it in found if it.session == 1][:2] == [RATE, 2 * RATE]


def test_an_engine_that_fails_says_so() -> None:
    (failed,) = asyncio.run(asked(Failing(1.0, 2), [DiarizationInput(1, b"00", True)], 1))
    assert failed.failure == "it cannot"


def test_leaving_ends_the_work() -> None:
    async def go() -> None:
        model = Diarizer(SimDiarizer(1.0, 2))
        lane = model.listen("lane")
        await anext(lane)
        await model.exchange("lane", [DiarizationInput(1, b"00")], [])
        (recording,) = model._lanes["lane"].sessions.values()
        await model.exchange("lane", [], [1])
        await asyncio.sleep(0)
        assert recording.task.cancelled() and not model._lanes["lane"].sessions

    asyncio.run(go())


def test_pyannotes_annotation_becomes_turns() -> None:
    class Span:
        def __init__(self, start: float, end: float) -> None:
            self.start, self.end = start, end

    class Annotation:
        def itertracks(self, yield_label: bool) -> list[tuple[Span, str, str]]:
            return [(Span(0.5, 1.0), "A", "SPEAKER_01"), (Span(1.0, 2.0), "B", "SPEAKER_00")]

    assert turns_of(Annotation()) == [SpeakerTurn(0, 8000, 16_000), SpeakerTurn(1, 16_000, 32_000)]


def test_words_go_to_the_turn_they_overlap_most_else_the_nearest() -> None:
    turns = [SpeakerTurn(0, 0, 1000), SpeakerTurn(1, 1000, 5000)]
    words = [Word("a", 0, 900, 1), Word("b", 800, 1500, 1), Word("c", 7000, 7500, 1)]
    assert [it.speaker for it in assign(words, turns)] == [0, 1, 1]
    assert [it.speaker for it in assign(words, [])] == [None] * 3


def test_speakers_are_named_in_the_order_they_speak() -> None:
    turns = [
        SpeakerTurn(7, RATE, 2 * RATE),
        SpeakerTurn(3, 0, RATE),
        SpeakerTurn(7, 2 * RATE, 3 * RATE),
    ]
    assert tidied(turns) == [SpeakerTurn(0, 0, RATE), SpeakerTurn(1, RATE, 3 * RATE)]
    assert [label(n) for n in (None, 0, 25, 26, 27, 52)] == [None, "A", "Z", "AA", "AB", "BA"]


def test_segments_end_with_pauses_sentences_and_speakers() -> None:
    words = [Word(f"w{n}", n * 8000, n * 8000 + 7000, 1.0) for n in range(30)]
    spoken = assign(words, [SpeakerTurn(0, 0, 100_000), SpeakerTurn(1, 100_000, 300_000)])
    plain, apart = segments(spoken, False), segments(spoken, True)
    assert sum(map(len, plain)) == sum(map(len, apart)) == 30
    assert all(group[-1].word.end - group[0].word.start <= 8 * RATE for group in plain)
    assert all(len({it.speaker for it in group}) == 1 for group in apart)
    pause = [words[0], words[1]._replace(start=50_000, end=51_000)]
    assert len(segments(assign(pause, []), False)) == 2
    ended = [words[n]._replace(text="end.") if n == 10 else words[n] for n in range(14)]
    assert [len(group) for group in segments(assign(ended, []), False)] == [11, 3]
