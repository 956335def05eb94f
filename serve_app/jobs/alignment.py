"""Assigns words to speakers and splits words into segments. Pure. Positions are samples."""

from collections.abc import Sequence
from typing import NamedTuple

from deployments.interfaces import RATE, SpeakerTurn, Word

PAUSE = 6 * RATE // 10
"""Silence between two words that ends a segment."""

LONGEST = 8 * RATE
"""Longer segments are ended at a word; from half this length on, at the end of a sentence."""

SENTENCE_ENDS = (".", "?", "!", "…", "\u3002", "\uff1f", "\uff01")


class AttributedWord(NamedTuple):
    """A word and its speaker; None without diarization."""

    word: Word
    speaker: int | None


def assign(words: Sequence[Word], turns: Sequence[SpeakerTurn]) -> list[AttributedWord]:
    """Assign each word to the turn it overlaps most, or to the nearest; `turns` are in order."""
    spoken, first = [], 0
    for word in words:
        while first < len(turns) - 1 and turns[first].end <= word.start - 10 * RATE:
            first += 1
        near = turns[first : first + 64]
        best = max(near, key=lambda turn: _overlap(word, turn), default=None)
        spoken.append(AttributedWord(word, best.speaker if best else None))
    return spoken


def _overlap(word: Word, turn: SpeakerTurn) -> int:
    """Samples in common; negative: the distance between them."""
    return min(word.end, turn.end) - max(word.start, turn.start)


def segments(words: Sequence[AttributedWord], by_speaker: bool) -> list[list[AttributedWord]]:
    """Words grouped by pauses, sentences and, with `by_speaker`, speakers."""
    groups: list[list[AttributedWord]] = []
    for spoken in words:
        if not groups or _starts_segment(groups[-1], spoken, by_speaker):
            groups.append([])
        groups[-1].append(spoken)
    return groups


def _starts_segment(
    group: Sequence[AttributedWord], spoken: AttributedWord, by_speaker: bool
) -> bool:
    last = group[-1]
    long = spoken.word.end - group[0].word.start
    return (
        spoken.word.start - last.word.end >= PAUSE
        or (by_speaker and spoken.speaker != last.speaker)
        or long > LONGEST
        or (long > LONGEST // 2 and last.word.text.endswith(SENTENCE_ENDS))
    )


def tidied(turns: Sequence[SpeakerTurn]) -> list[SpeakerTurn]:
    """In order, adjacent turns of one speaker joined, speakers numbered by their first turn."""
    numbers: dict[int, int] = {}
    tidy: list[SpeakerTurn] = []
    for turn in sorted(turns, key=lambda turn: (turn.start, turn.end)):
        speaker = numbers.setdefault(turn.speaker, len(numbers))
        if tidy and tidy[-1].speaker == speaker and turn.start - tidy[-1].end <= PAUSE:
            tidy[-1] = tidy[-1]._replace(end=max(turn.end, tidy[-1].end))
        else:
            tidy.append(SpeakerTurn(speaker, turn.start, turn.end))
    return tidy


def label(speaker: int | None) -> str | None:
    """`A`, `B`, … `Z`, `AA`: the speaker names of OpenAI's `diarized_json`."""
    if speaker is None:
        return None
    letters = chr(ord("A") + speaker % 26)
    return letters if speaker < 26 else f"{label(speaker // 26 - 1)}{letters}"


def number_of(label_: str) -> int:
    """The speaker number of a label."""
    number = 0
    for letter in label_:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
