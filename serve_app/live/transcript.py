"""A finished transcript, rendered as text, SRT or WebVTT. Pure.

SRT as SubRip writes it (`00:00:01,500 --> …`); WebVTT as in https://www.w3.org/TR/webvtt1/.
"""

from collections.abc import Sequence
from html import escape
from typing import Literal

from pydantic import BaseModel

from deployments.interfaces import RATE, Word

Form = Literal["txt", "srt", "vtt", "json"]


class WordOut(BaseModel):
    """A word with its start and end in the recording."""

    word: str
    start_ms: int
    end_ms: int
    confidence: float

    @classmethod
    def of(cls, word: Word, from_: int = 0) -> "WordOut":
        """A word whose position is in samples after `from_`."""
        return cls(
            word=word.text,
            start_ms=ms(from_ + word.start),
            end_ms=ms(from_ + word.end),
            confidence=round(word.confidence, 3),
        )

    @property
    def spoken(self) -> Word:
        """In samples."""
        samples = RATE // 1000
        return Word(self.word, self.start_ms * samples, self.end_ms * samples, self.confidence)


class Segment(BaseModel):
    """One utterance, in ms of the recording."""

    id: int
    start_ms: int
    end_ms: int
    text: str
    confidence: float


class Transcript(BaseModel):
    """The transcript of a recording."""

    text: str
    duration_ms: int
    language: str | None
    segments: list[Segment]
    words: list[WordOut]
    engine: str
    processing_ms: int


def ms(samples: int) -> int:
    """Samples at 16 kHz as whole milliseconds."""
    return samples * 1000 // RATE


def confidence(words: Sequence[Word]) -> float:
    """The mean confidence of the words; 0 without words."""
    return round(sum([word.confidence for word in words]) / len(words), 3) if words else 0.0


def render(form: Form, segments: Sequence[Segment]) -> str:
    """The segments as plain text, SRT or WebVTT; segments without words are left out."""
    spoken = [segment for segment in segments if segment.text]
    if form == "srt":
        return "".join(
            f"{number}\n{_span(segment, ',')}\n{_unlike_a_time(one_line(segment.text))}\n\n"
            for number, segment in enumerate(spoken, 1)
        )
    if form == "vtt":
        cues = "".join(
            f"{_span(segment, '.')}\n{escape(one_line(segment.text), quote=False)}\n\n"
            for segment in spoken
        )
        return f"WEBVTT\n\n{cues}"
    return "".join(f"{one_line(segment.text)}\n" for segment in spoken)


def one_line(text: str) -> str:
    """An engine's words as one line, so that they cannot look like the form around them."""
    return " ".join("".join(it if it.isprintable() else " " for it in text).split())


def _unlike_a_time(text: str) -> str:
    """SRT has no way to quote this."""
    return text.replace("-->", "->")


def _span(segment: Segment, point: str) -> str:
    return f"{clock(segment.start_ms, point)} --> {clock(segment.end_ms, point)}"


def clock(ms: int, point: str) -> str:
    """`01:02:03.004`, with `point` before the milliseconds."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"
