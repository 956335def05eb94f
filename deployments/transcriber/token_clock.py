"""Words and their times from Voxtral Realtime's tokens. Pure.

The model writes one token for every 80 ms of audio, after a fixed delay. Without the delay, token i
is for the i-th 80 ms. In silence it writes [STREAMING_PAD]; before a word, [STREAMING_WORD].
"""

import math
from collections.abc import Callable, Sequence

from deployments.interfaces import RATE, Word

FRAME = RATE * 80 // 1000
"""Samples per token."""

PAD = 32
WORD = 33
SPECIAL = 1000
"""Tokens below it are control tokens without text."""


class _Word:
    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self.tokens: list[int] = []
        self.logprobs: list[float] = []


class TokenClock:
    """One request's words. `start` is the sample, in the utterance, at which its audio begins;
    `decode` turns tokens into text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], start: int) -> None:
        self._decode = decode
        self._start = start
        self._open: _Word | None = None
        self._marked: int | None = None
        self._spoken = start
        self.words: list[Word] = []
        """Closed words, which later tokens do not change."""
        self.tokens = 0

    @property
    def now(self) -> int:
        """The sample at which the next token's frame starts."""
        return self._start + self.tokens * FRAME

    def take(self, token: int, logprob: float) -> None:
        at, self.tokens = self.now, self.tokens + 1
        if token == WORD:
            self._close()
            self._marked = at
        elif token < SPECIAL:
            self._close()
        else:
            self._write(token, logprob, at)

    def _write(self, token: int, logprob: float, at: int) -> None:
        if self._open and self._decode([token])[:1].isspace():
            self._close()
        if self._open is None:
            self._open = _Word(at if self._marked is None else self._marked)
            self._marked = None
        self._open.tokens.append(token)
        self._open.logprobs.append(logprob)
        self._open.end = self._spoken = at + FRAME

    def finish(self) -> None:
        """Call it after the last token."""
        self._close()

    def _close(self) -> None:
        word, self._open = self._open, None
        if word is None:
            return
        parts = self._decode(word.tokens).split()
        each = (word.end - word.start) // max(1, len(parts))
        confidence = round(math.exp(sum(word.logprobs) / len(word.logprobs)), 3)
        for number, part in enumerate(parts):
            start = word.start + number * each
            self.words.append(Word(part, start, start + each, confidence))

    def gap(self) -> tuple[int, int] | None:
        """The samples after the last word, if no new word has begun; None while a word is open."""
        return None if self._open or self._marked is not None else (self._spoken, self.now)

    def last_border(self) -> int:
        """The sample at which the last closed word ended."""
        return self.words[-1].end if self.words else self.now
