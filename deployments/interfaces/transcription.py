"""Speech to text: audio and options in, hypotheses out, and the engine."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

from deployments.fairness import NOBODY, Payer
from deployments.interfaces.engine import Options


class Word(NamedTuple):
    """A word with its start and end, in samples from the start of its utterance."""

    text: str
    start: int
    end: int
    confidence: float


class SpeechOptions(NamedTuple):
    """A client's options for recognition; the same for a whole session."""

    language: str | None = None
    interim_results: bool = True
    hotwords: tuple[str, ...] = ()
    grammar: str | None = None
    prompt: str | None = None
    """A question about the audio: the engine answers it instead of transcribing."""
    batch: bool = False
    """Part of a recording: live speech goes first."""


class Speech(NamedTuple):
    """The next piece of an utterance. `options` is set on the first piece, `ended` on the last."""

    session: int
    utterance: int
    pcm: bytes
    ended: bool = False
    options: SpeechOptions | None = None


class Hypothesis(NamedTuple):
    """The recognised words of an utterance's first `until` samples.

    `words` replaces the words from index `keep` on, so that a growing utterance does not send old
    words again. When the engine failed, `failure` is set and there are no words.
    """

    session: int
    utterance: int
    until: int
    words: tuple[Word, ...]
    final: bool
    keep: int = 0
    failure: str | None = None
    language: str | None = None
    """The language that the engine detected, on a final; None if it does not detect it."""


class UtteranceKey(NamedTuple):
    lane: str
    session: int
    utterance: int
    payer: Payer = NOBODY


def payer_of(key: Hashable) -> Payer:
    """Whose utterance it is."""
    return key.payer if isinstance(key, UtteranceKey) else NOBODY


class Utterance(NamedTuple):
    """The next piece of an utterance, for an engine; `key` is unique in the replica, and
    `payer_of(key)` says whose it is."""

    key: Hashable
    pcm: bytes
    ended: bool
    options: SpeechOptions


class EngineHypothesis(NamedTuple):
    """An engine's words for the first `until` samples of the utterance `key`; see `Hypothesis`."""

    key: Hashable
    until: int
    words: tuple[Word, ...]
    final: bool
    keep: int = 0
    failure: str | None = None
    language: str | None = None


class Emit(Protocol):
    """Called by an engine, on its event loop, with new hypotheses."""

    def __call__(self, hypotheses: Sequence[EngineHypothesis], /) -> None: ...


class TranscriberEngine(Protocol):
    """A speech recogniser. Implement this to bring your own model.

    `feed` gets one batch per interval with the new audio of all utterances. It returns when it has
    accepted the audio, decoded or not. The engine calls `emit` when it has words, and exactly once
    with `final=True` for every utterance whose `ended` piece it got.
    `forget` drops utterances whose client has left.
    """

    name: str
    languages: tuple[str, ...] | None
    """ISO 639-1 codes; None: any."""
    revises: bool
    """Whether a final may differ from the partials before it; if not, words are only added."""
    options: Options
    """Which of LANGUAGE, HOTWORDS, GRAMMAR and PROMPT it supports."""

    async def start(self, emit: Emit) -> None: ...

    async def feed(self, batch: Sequence[Utterance]) -> None: ...

    async def forget(self, keys: Sequence[Hashable]) -> None: ...

    async def stop(self) -> None: ...
