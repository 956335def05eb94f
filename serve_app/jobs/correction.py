"""Corrections of a result: what a person changes in a transcript, and the result after it. Pure.

A segment keeps its id through all corrections, so several in one request mean what they meant when
they were made. A word that does not change keeps its times; new words share the time of those that
they replace. What a person wrote has a confidence of 1.
"""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from serve_app.errors import ClientError
from serve_app.jobs.result import Result, SpokenSegment, SpokenWord, TurnOut
from serve_app.live.transcript import Segment

MOST_EDITS = 500
MOST_TEXT = 20_000
MOST_NAME = 80


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only printable characters, in one line")
    return " ".join(text.split())


MOST_SEGMENTS = 10_000_000
Id = Annotated[int, Field(ge=0, le=MOST_SEGMENTS, description="The segment's `id`.")]
Text = Annotated[str, AfterValidator(_one_line), Field(max_length=MOST_TEXT)]
Name = Annotated[str, AfterValidator(_one_line), Field(min_length=1, max_length=MOST_NAME)]


class Edit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetText(Edit):
    """Other words in a segment."""

    op: Literal["set_text"]
    segment: Id
    text: Text


class SetSpeaker(Edit):
    """Somebody else said it."""

    op: Literal["set_speaker"]
    segment: Id
    speaker: Name


class RenameSpeaker(Edit):
    """Everywhere; a name that another speaker has makes one of the two."""

    op: Literal["rename_speaker"]
    speaker: Name
    name: Name


class Split(Edit):
    """Before a word, counted from 0; the second part gets a new id."""

    op: Literal["split"]
    segment: Id
    word: int = Field(ge=1, le=MOST_SEGMENTS)


class Merge(Edit):
    """With the next segment, whose speaker and id are gone then."""

    op: Literal["merge"]
    segment: Id


AnyEdit = Annotated[SetText | SetSpeaker | RenameSpeaker | Split | Merge, Field(discriminator="op")]


class Correction(BaseModel):
    """All edits, or none of them; or back to an earlier revision."""

    model_config = ConfigDict(extra="forbid")

    edits: list[AnyEdit] = Field([], max_length=MOST_EDITS)
    revert_to: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="The revision whose words count again; 0: the recogniser's.",
    )


def corrected(result: Result, edits: Sequence[Edit]) -> Result:
    """The result after the edits, in their order. Raises `ClientError` for a wrong one."""
    segments = list(result.aligned_segments)
    for edit in edits:
        segments = _APPLY[type(edit)](segments, edit)
    return _with(result, segments)


def _set_text(segments: list[SpokenSegment], edit: Any) -> list[SpokenSegment]:
    at = _at(segments, edit.segment)
    old, new = segments[at], edit.text.split()
    has_times = any(it.words for it in segments)  # one whose words were all taken away has none now
    words = retimed(old.words, new, old) if has_times else []
    changed: dict[str, Any] = {"text": " ".join(new), "words": words}
    if not words:
        changed["confidence"] = 1.0
    return [*segments[:at], _measured(old.model_copy(update=changed)), *segments[at + 1 :]]


def _set_speaker(segments: list[SpokenSegment], edit: Any) -> list[SpokenSegment]:
    at = _at(segments, edit.segment)
    return [*segments[:at], _said_by(segments[at], edit.speaker), *segments[at + 1 :]]


def _rename_speaker(segments: list[SpokenSegment], edit: Any) -> list[SpokenSegment]:
    if edit.speaker not in {it.speaker for it in segments}:
        raise _unfit(f"there is no speaker {edit.speaker!r}")
    return [_said_by(it, edit.name) if it.speaker == edit.speaker else it for it in segments]


def _split(segments: list[SpokenSegment], edit: Any) -> list[SpokenSegment]:
    at = _at(segments, edit.segment)
    whole = segments[at]
    if edit.word >= len(whole.text.split()):
        raise _unfit(f"segment {edit.segment} has no word {edit.word} to split it at")
    new_id = max(it.id for it in segments) + 1
    return [*segments[:at], *_parts(whole, edit.word, new_id), *segments[at + 1 :]]


def _parts(whole: SpokenSegment, word: int, new_id: int) -> tuple[SpokenSegment, SpokenSegment]:
    texts = whole.text.split()
    first, second = " ".join(texts[:word]), " ".join(texts[word:])
    if len(whole.words) == len(texts):
        until, since = whole.words[word - 1].end_ms, whole.words[word].start_ms
    else:  # no times of words: by the length of the texts
        share = len(first) / len(whole.text)
        until = since = whole.start_ms + round((whole.end_ms - whole.start_ms) * share)
    left = {"text": first, "end_ms": until, "words": whole.words[:word]}
    right = {"id": new_id, "text": second, "start_ms": since, "words": whole.words[word:]}
    return _measured(whole.model_copy(update=left)), _measured(whole.model_copy(update=right))


def _merge(segments: list[SpokenSegment], edit: Any) -> list[SpokenSegment]:
    at = _at(segments, edit.segment)
    if at + 1 == len(segments):
        raise _unfit(f"after segment {edit.segment} there is none to merge it with")
    one, next_ = segments[at], _said_by(segments[at + 1], segments[at].speaker)
    together = {
        "end_ms": max(one.end_ms, next_.end_ms),
        "text": f"{one.text} {next_.text}".strip(),
        "words": [*one.words, *next_.words],
        "confidence": round((one.confidence + next_.confidence) / 2, 3),
    }
    return [*segments[:at], _measured(one.model_copy(update=together)), *segments[at + 2 :]]


_APPLY: dict[type[Edit], Callable[[list[SpokenSegment], Any], list[SpokenSegment]]] = {
    SetText: _set_text,
    SetSpeaker: _set_speaker,
    RenameSpeaker: _rename_speaker,
    Split: _split,
    Merge: _merge,
}


def retimed(
    old: Sequence[SpokenWord], new: Sequence[str], within: SpokenSegment
) -> list[SpokenWord]:
    """The new words with the times of the old ones that they are, or whose places they take."""
    found: list[SpokenWord] = []
    matcher = SequenceMatcher(None, [it.word for it in old], list(new), autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            found += old[i:j]
            continue
        start = old[i].start_ms if i < j else old[i - 1].end_ms if i else within.start_ms
        end = old[j - 1].end_ms if i < j else old[j].start_ms if j < len(old) else within.end_ms
        found += _spread(new[k:m], start, max(start, end), within.speaker)
    return found


def _spread(words: Sequence[str], start: int, end: int, speaker: str | None) -> list[SpokenWord]:
    """Each has a share of the time by its letters."""
    letters, said = sum(map(len, words)), 0
    found = []
    for word in words:
        begin = start + (end - start) * said // letters
        said += len(word)
        until = start + (end - start) * said // letters
        times = {"start_ms": begin, "end_ms": until}
        found.append(SpokenWord(word=word, **times, confidence=1.0, speaker=speaker))
    return found


def _said_by(segment: SpokenSegment, speaker: str | None) -> SpokenSegment:
    words = [it.model_copy(update={"speaker": speaker}) for it in segment.words]
    return segment.model_copy(update={"speaker": speaker, "words": words})


def _measured(segment: SpokenSegment) -> SpokenSegment:
    """With the mean confidence of its words."""
    if not segment.words:
        return segment
    mean = sum(it.confidence for it in segment.words) / len(segment.words)
    return segment.model_copy(update={"confidence": round(mean, 3)})


def _with(result: Result, segments: list[SpokenSegment]) -> Result:
    """What follows from the segments: text, words, turns."""
    plain = ("id", "start_ms", "end_ms", "text", "confidence")
    return result.model_copy(
        update={
            "full_text": " ".join(it.text for it in segments if it.text),
            "aligned_segments": segments,
            "segments": [Segment(**{name: getattr(it, name) for name in plain}) for it in segments],
            "words": [word for it in segments for word in it.words],
            "speaker_turns": _turns(segments),
        }
    )


def _turns(segments: list[SpokenSegment]) -> list[TurnOut]:
    groups = [list(group) for _, group in groupby(segments, lambda it: it.speaker)]
    return [
        TurnOut(speaker=it[0].speaker, start_ms=it[0].start_ms, end_ms=it[-1].end_ms)
        for it in groups
        if it[0].speaker
    ]


def _at(segments: list[SpokenSegment], id_: int) -> int:
    for at, segment in enumerate(segments):
        if segment.id == id_:
            return at
    raise _unfit(f"there is no segment {id_}")


def _unfit(reason: str) -> ClientError:
    return ClientError("edit_unfit", f"{reason}; nothing was changed")
