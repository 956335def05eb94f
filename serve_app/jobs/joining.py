"""Joins the words of overlapping windows, each spoken word once. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deployments.interfaces import RATE, Word
from deployments.transcriber.windows import OVERLAP, ModelWindow, join


class Transcribed(NamedTuple):
    """A window's words, in samples of its channel; the format of its checkpoint."""

    channel: int
    start: int
    end: int
    overlap: int
    """Samples at its beginning that are also at the end of the previous window."""
    goes_on: bool
    """Its last `OVERLAP` samples are also in the next window."""
    words: tuple[Word, ...]
    language: str | None
    music: bool = False


class Joining:
    """The words of one channel, as soon as no later window can change them."""

    def __init__(self) -> None:
        self._open: list[Word] = []

    def push(self, window: Transcribed) -> list[Word]:
        """The words that are now final."""
        words = self._joined(window)
        if not window.goes_on:
            self._open = []
            return words
        border = window.end - OVERLAP - RATE  # `join` does not change what ends before
        settled = next((at for at, word in enumerate(words) if word.end > border), len(words))
        self._open = words[settled:]
        return words[:settled]

    def finish(self) -> list[Word]:
        """The last words."""
        last, self._open = self._open, []
        return last

    def _joined(self, window: Transcribed) -> list[Word]:
        if not window.overlap:
            return [*self._open, *window.words]
        return join(
            self._open, window.words, ModelWindow(window.start, window.start + window.overlap)
        )


def joined(windows: Iterable[Transcribed]) -> Sequence[Word]:
    """All words of a channel; its windows are in order."""
    joining = Joining()
    words = [word for window in windows for word in joining.push(window)]
    return [*words, *joining.finish()]


def language_of(windows: Iterable[Transcribed]) -> str | None:
    """The language of most words, if the engine detects it."""
    languages: Counter[str] = Counter()
    for window in windows:
        if window.language:
            languages[window.language] += len(window.words)
    return next((name for name, _ in languages.most_common(1)), None)
