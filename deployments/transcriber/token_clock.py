"""Words and their times out of Voxtral Realtime's tokens. Pure.

The model writes one token for every 80 ms of audio, a fixed delay behind it; with the delay taken
off, token i stands for the i-th 80 ms. Where nothing is said it writes [STREAMING_PAD]; before a
word it writes [STREAMING_WORD].
"""

import math
from collections.abc import Callable, Sequence

from deployments.interfaces import RATE, Word

FRAME = RATE * 80 // 1000
"""Samples that a token stands for."""

PAD = 32
WORD = 33
SPECIAL = 1000
"""Tokens below it are control tokens, and no text."""


class _Word:
    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self.tokens: list[int] = []
        self.logprobs: list[float] = []


class TokenClock:
    """One request's words. `start` is the sample, in the utterance, at which its audio begins;
    `decode` makes text of tokens."""

    def __init__(self, decode: Callable[[Sequence[int]], str], start: int) -> None:
        self._decode = decode
        self._start = start
        self._open: _Word | None = None
        self._marked: int | None = None
        self._spoken = start
        self.words: list[Word] = []
        """Closed words: what comes later does not change them."""
        self.tokens = 0

    @property
    def now(self) -> int:
        """The sample that the next token stands for."""
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
        """There will be no more tokens."""
        self._close()

    def _close(self) -> None:
        word, self._open = self._open, None
        if word is None:
            return
        parts = self._decode(word.tokens).split()
        each = (word.end - word.start) // max(1, len(parts))
        sure = round(math.exp(sum(word.logprobs) / len(word.logprobs)), 3)
        for number, part in enumerate(parts):
            start = word.start + number * each
            self.words.append(Word(part, start, start + each, sure))

    def gap(self) -> tuple[int, int] | None:
        """The samples since the last word in which none has begun; None while a word is open."""
        return None if self._open or self._marked is not None else (self._spoken, self.now)

    def last_border(self) -> int:
        """The sample at which the last closed word ended; what came after it is not settled."""
        return self.words[-1].end if self.words else self.now
