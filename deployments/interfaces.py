"""What the application asks of a model, and the values that cross a process boundary to ask it.

Positions and lengths are samples at `RATE` (16 kHz, mono); `pcm` is signed 16-bit little-endian.
The values below travel ten thousand times a second, so they are NamedTuples, which cost a third
of what frozen dataclasses do.
"""

from collections.abc import AsyncIterator, Hashable, Sequence
from typing import NamedTuple, Protocol

RATE = 16_000
"""Hz: the one rate inside voxray. Every dialect resamples to it at its edge."""

BYTES_PER_SAMPLE = 2


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


class Unjudged(NamedTuple):
    """Audio of one session that the VAD has not heard yet.

    `resume` stands on the first piece a replica gets of a session: the sample at which the piece
    begins, at the border of a frame of 20 ms, and whether the person was speaking there.
    """

    session: int
    pcm: bytes
    resume: tuple[int, bool] | None = None


class Transition(NamedTuple):
    """Speech starts (at its first sample, before any prefix) or ends (after its last)."""

    speaking: bool
    sample: int


class Judged(NamedTuple):
    """The VAD has heard a session up to sample `until`; `voiced` if any frame of it was voice.

    The part of a frame at the end counts as heard: no transition will lie before it, for speech
    ends only at the end of a frame, and its start is dated back.
    """

    session: int
    until: int
    transitions: tuple[Transition, ...]
    voiced: bool


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


class LaneLost(Exception):
    """Audio came of a session that did not begin in this lane."""


class Vad(Protocol):
    """Speech start and end of many sessions; answers from `exchange`."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[Judged]]: ...

    async def exchange(
        self, lane: str, batch: Sequence[Unjudged], left: Sequence[int]
    ) -> Sequence[Judged]: ...


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


class Guess(NamedTuple):
    """An engine's words for the first `until` samples of the utterance `key`; see `Hypothesis`."""

    key: Hashable
    until: int
    words: tuple[Word, ...]
    final: bool
    keep: int = 0
    failure: str | None = None


class Emit(Protocol):
    """Called by an engine, on its event loop, with whatever it has found out."""

    def __call__(self, guesses: Sequence[Guess], /) -> None: ...


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

    async def start(self, emit: Emit) -> None: ...

    async def feed(self, batch: Sequence[Utterance]) -> None: ...

    async def forget(self, keys: Sequence[Hashable]) -> None: ...

    async def stop(self) -> None: ...
