"""Speech start and end: what goes to a VAD and what it answers."""

from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import NamedTuple, Protocol


class Endpoint(NamedTuple):
    """What makes speech start and end, in ms; a session's own. 0 ms: never told."""

    aggressiveness: int = 2
    """0 hears speech most readily, 3 is the strictest."""
    min_speech_ms: int = 60
    min_silence_ms: int = 500
    pause_ms: int = 0
    """Silence after which speech has perhaps ended."""
    confirm_ms: int = 0
    """Voice, in all, that makes speech more than a cough."""


class Resume(NamedTuple):
    """Where a replica begins to hear a session: at the border of a frame of 20 ms."""

    sample: int
    speaking: bool
    endpoint: Endpoint


class VadInput(NamedTuple):
    """Audio of one session that the VAD has not heard yet.

    `resume` stands on the first piece a replica gets of a session, and on the first one after the
    session's endpoint has changed.
    """

    session: int
    pcm: bytes
    resume: Resume | None = None


class Edge(Enum):
    """What changes in a session's audio."""

    START = "start"
    """Speech starts, at its first sample, before any prefix."""
    CONFIRMED = "confirmed"
    """Enough of the speech was voice: it is more than a cough."""
    PAUSE = "pause"
    """Speech has perhaps ended; END or RESUME follows."""
    RESUME = "resume"
    """It had not."""
    END = "end"
    """Speech has ended, after the silence that shows it."""


class Transition(NamedTuple):
    edge: Edge
    sample: int


class VadResult(NamedTuple):
    """The VAD has heard a session up to sample `until`; `voiced` if any frame of it was voice.

    The part of a frame at the end counts as heard: no transition will lie before it, for all
    happen at the end of a frame but the start of speech, which is dated back.
    """

    session: int
    until: int
    transitions: tuple[Transition, ...]
    voiced: bool


class Vad(Protocol):
    """Speech start and end of many sessions; answers from `exchange`."""

    def listen(self, lane: str) -> AsyncIterator[Sequence[VadResult]]: ...

    async def exchange(
        self, lane: str, batch: Sequence[VadInput], left: Sequence[int]
    ) -> Sequence[VadResult]: ...
