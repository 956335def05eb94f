"""The result of a job: segments, speakers, words and metrics. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from deployments.interfaces import SpeakerTurn, Word
from serve_app.jobs.alignment import AttributedWord, assign, label, segments, tidied
from serve_app.jobs.quality import Quality
from serve_app.live.transcript import Segment, WordOut, confidence, ms


class SpokenWord(WordOut):
    speaker: str | None


class SpokenSegment(Segment):
    """A segment of one speaker."""

    speaker: str | None
    words: list[SpokenWord]


class TurnOut(BaseModel):
    """A turn of one speaker, in ms of the recording."""

    speaker: str
    start_ms: int
    end_ms: int


class Result(BaseModel):
    """The whole result of a job."""

    full_text: str
    language: str | None
    duration_ms: int
    segments: list[Segment]
    aligned_segments: list[SpokenSegment]
    speaker_turns: list[TurnOut]
    words: list[SpokenWord]
    engines: dict[str, str | None]
    quality: dict[str, float]
    warnings: list[str]
    performance_metrics: dict[str, float]


class StageResults(NamedTuple):
    """The results of the stages. Positions are samples."""

    words: Sequence[Word]
    language: str | None
    turns: Sequence[SpeakerTurn] | None
    """None without diarization."""
    channels: Mapping[int, Sequence[Word]] | None
    """The words of each channel, if each channel is a speaker."""


def result(
    found: StageResults,
    quality: Quality,
    warnings: Sequence[str],
    engines: dict[str, str | None],
    words: bool,
) -> Result:
    """Everything except `performance_metrics`, which are known last."""
    spoken, turns = _spoken(found)
    return Result(
        full_text=" ".join(it.word.text for it in spoken),
        language=found.language,
        duration_ms=ms(quality.samples),
        segments=_segments(spoken),
        aligned_segments=[
            SpokenSegment(
                **_fields(n, it),
                speaker=label(it[0].speaker),
                words=[_word(one) for one in it] if words else [],
            )
            for n, it in enumerate(segments(spoken, True))
        ],
        speaker_turns=[
            TurnOut(speaker=str(label(t.speaker)), start_ms=ms(t.start), end_ms=ms(t.end))
            for t in turns
        ],
        words=[_word(it) for it in spoken] if words else [],
        engines=engines,
        quality=quality.shown(),
        warnings=list(warnings),
        performance_metrics={},
    )


def segments_of(words: Sequence[Word]) -> list[Segment]:
    """The words in segments, without speakers."""
    return _segments([AttributedWord(word, None) for word in words])


def _segments(spoken: Sequence[AttributedWord]) -> list[Segment]:
    return [Segment(**_fields(n, it)) for n, it in enumerate(segments(spoken, False))]


def _spoken(found: StageResults) -> tuple[list[AttributedWord], list[SpeakerTurn]]:
    if found.channels is not None:
        return _by_channel(found.channels)
    if found.turns is None:
        return [AttributedWord(word, None) for word in found.words], []
    turns = tidied(found.turns)
    return assign(found.words, turns), turns


def _by_channel(
    channels: Mapping[int, Sequence[Word]],
) -> tuple[list[AttributedWord], list[SpeakerTurn]]:
    """Each channel is a speaker, with the channel's number."""
    spoken = [AttributedWord(word, number) for number, words in channels.items() for word in words]
    spoken.sort(key=lambda it: (it.word.start, it.word.end))
    turns = [
        SpeakerTurn(group[0].speaker or 0, group[0].word.start, group[-1].word.end)
        for group in segments(spoken, True)
    ]
    return spoken, turns


def _fields(number: int, group: Sequence[AttributedWord]) -> dict[str, Any]:
    return {
        "id": number,
        "start_ms": ms(group[0].word.start),
        "end_ms": ms(group[-1].word.end),
        "text": " ".join(it.word.text for it in group),
        "confidence": confidence([it.word for it in group]),
    }


def _word(it: AttributedWord) -> SpokenWord:
    word = it.word
    return SpokenWord(
        word=word.text,
        start_ms=ms(word.start),
        end_ms=ms(word.end),
        confidence=round(word.confidence, 3),
        speaker=label(it.speaker),
    )
