"""Cuts long audio into windows that fit a model, and joins their words. Pure.

A window ends in silence if there is any; otherwise the next window overlaps it, so that a word on
the border is complete in one of them. Positions are samples at `RATE`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from deployments.interfaces import RATE, Word

LONGEST = 30 * RATE
OVERLAP = 2 * RATE
SEARCH = 8 * RATE
"""A window ends at the quietest place in this many samples at its end."""

HOP = RATE // 50
QUIET = 0.1
"""A level below this share of the window's loud parts is silence."""


class ModelWindow(NamedTuple):
    start: int
    end: int


class Spelled(NamedTuple):
    """A word without its time."""

    text: str
    confidence: float


def cut(audio: Any) -> list[ModelWindow]:
    """Windows over all of float32 `audio`, none longer than `LONGEST`."""
    windows = []
    start = 0
    while len(audio) - start > LONGEST:
        silent = _silence(audio[start : start + LONGEST])
        end = start + (silent if silent is not None else LONGEST)
        windows.append(ModelWindow(start, end))
        start = end if silent is not None else end - OVERLAP
    return [*windows, ModelWindow(start, len(audio))]


def _silence(audio: Any) -> int | None:
    """The middle of the quietest 20 ms near the end, if it is silent."""
    levels = np.sqrt(np.square(audio[: len(audio) // HOP * HOP].reshape(-1, HOP)).mean(axis=1))
    tail = len(levels) - SEARCH // HOP
    quietest = tail + int(np.argmin(levels[tail:]))
    loud = float(np.percentile(levels, 90))
    return quietest * HOP + HOP // 2 if levels[quietest] <= QUIET * loud else None


def timed(spelled: Sequence[Spelled], window: ModelWindow, audio: Any) -> list[Word]:
    """Words with estimated times, for a model that gives none: spread over the audible part of
    the window by their length. `audio` is the window's."""
    begin, end = _audible(audio)
    total = sum(len(word.text) + 1 for word in spelled) or 1
    placed, at = [], 0
    for word in spelled:
        start, at = at, at + len(word.text) + 1
        placed.append(
            Word(
                word.text,
                window.start + begin + (end - begin) * start // total,
                window.start + begin + (end - begin) * at // total,
                word.confidence,
            )
        )
    return placed


def _audible(audio: Any) -> tuple[int, int]:
    frames = audio[: len(audio) // HOP * HOP].reshape(-1, HOP)
    levels = np.sqrt(np.square(frames).mean(axis=1)) if len(frames) else np.zeros(0)
    loud = np.flatnonzero(levels > QUIET * (levels.max() if len(levels) else 0))
    return (int(loud[0]) * HOP, (int(loud[-1]) + 1) * HOP) if len(loud) else (0, len(audio))


def join(before: Sequence[Word], after: Sequence[Word], overlap: ModelWindow) -> list[Word]:
    """The words of two windows that share `overlap`, each spoken word once.

    They meet at the longest run of words near the overlap that both contain, or else in the middle
    of the overlap.
    """
    near = [word for word in before if word.end > overlap.start - RATE]
    limit = next(
        (number for number, word in enumerate(after) if word.start > overlap.end + RATE), len(after)
    )
    best = (0, 0, 0)
    for i in range(len(near)):
        for j in range(limit):
            run = _run(near[i:], after[j:limit])
            best = max(best, (run, -i, j))
    run, i, j = best[0], -best[1], best[2]
    if run:
        kept = len(before) - len(near) + i + run
        return [*before[:kept], *after[j + run :]]
    middle = (overlap.start + overlap.end) // 2
    return [
        *(word for word in before if word.start < middle),
        *(word for word in after if word.start >= middle),
    ]


def _run(before: Sequence[Word], after: Sequence[Word]) -> int:
    """How many words both begin with."""
    return agreed([word.text for word in before], [word.text for word in after])


def agreed(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words from the start two hypotheses agree on, case and punctuation aside
    (LocalAgreement-2: Liu et al. 2020, "Low-latency sequence-to-sequence speech recognition")."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if bare(a) != bare(b):
            return number
    return min(len(one), len(other))


def bare(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold())) or word


def spell(
    tokens: Sequence[int], logprobs: Sequence[float], decode: Callable[[Sequence[int]], str]
) -> list[Spelled]:
    """The words of a model's tokens; a word's confidence is the geometric mean of its tokens'."""
    words: list[tuple[list[int], list[float]]] = []
    for token, logprob in zip(tokens, logprobs, strict=True):
        if not words or decode([token])[:1].isspace():
            words.append(([], []))
        words[-1][0].append(token)
        words[-1][1].append(logprob)
    return [
        Spelled(part, round(float(np.exp(np.mean(its_logprobs))), 3))
        for group, its_logprobs in words
        for part in decode(group).split()
    ]
