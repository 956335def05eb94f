"""Speech to text: what goes to a transcriber, what it answers, and the engine behind it."""

from collections.abc import AsyncIterator, Hashable, Sequence
from typing import NamedTuple, Protocol

from deployments.interfaces.engine import Options


class Word(NamedTuple):
    """A word and its place, in samples since the start of its utterance."""

    text: str
    start: int
    end: int
    confidence: float


class SpeechOptions(NamedTuple):
    """What a client asked of the recogniser; the same for a whole session."""

    language: str | None = None
    interim_results: bool = True
    hotwords: tuple[str, ...] = ()
    grammar: str | None = None
    prompt: str | None = None
    """A question about the audio: the engine answers it instead of writing down what was said."""
    batch: bool = False
    """Nobody waits for it: whoever speaks live goes first."""


class Speech(NamedTuple):
    """The next piece of an utterance. `options` stands on its first piece, `ended` on its last."""

    session: int
    utterance: int
    pcm: bytes
    ended: bool = False
    options: SpeechOptions | None = None


class Hypothesis(NamedTuple):
    """What the recogniser believes of an utterance's first `until` samples.

    `words` replaces the words from index `keep` on, so that a growing utterance does not send
    its old words again. `failure` is set instead of words when the engine failed.
    """

    session: int
    utterance: int
    until: int
    words: tuple[Word, ...]
    final: bool
    keep: int = 0
    failure: str | None = None
    language: str | None = None
    """What the engine heard spoken, on a final; None where it does not tell."""


class Transcriber(Protocol):
    """Words of many sessions; answers over `listen`. A lane is open while it is listened to."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[Hypothesis]]: ...

    async def exchange(self, lane: str, batch: Sequence[Speech], left: Sequence[int]) -> None: ...


class Utterance(NamedTuple):
    """The next piece of an utterance as an engine gets it; `key` is unique in the replica."""

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
    """Called by an engine, on its event loop, with whatever it has found out."""

    def __call__(self, hypotheses: Sequence[EngineHypothesis], /) -> None: ...


class TranscriberEngine(Protocol):
    """A speech recogniser. Implement this to bring your own model.

    `feed` gets one batch a tick with the new audio of every utterance that has some, and returns
    when it has taken it; it need not have decoded it. It calls `emit` whenever it has words, and
    exactly once with `final=True` for every utterance whose `ended` piece it was fed.
    `forget` drops utterances whose client has gone; their words are no longer wanted.
    """

    name: str
    languages: tuple[str, ...] | None
    """ISO 639-1 codes, or None when it takes any."""
    revises: bool
    """A final may differ from the partials before it; if not, words are only ever added."""
    options: Options
    """Of LANGUAGE, HOTWORDS, GRAMMAR and PROMPT those that it uses."""

    async def start(self, emit: Emit) -> None: ...

    async def feed(self, batch: Sequence[Utterance]) -> None: ...

    async def forget(self, keys: Sequence[Hashable]) -> None: ...

    async def stop(self) -> None: ...
