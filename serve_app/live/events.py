"""The facts that a live session takes, its orders, and the events for its client. Pure.

What every chunk of audio makes is a msgspec Struct, which is made in a tenth of the time.
"""

from dataclasses import dataclass

import msgspec

from deployments.interfaces import (
    Endpoint,
    Hypothesis,
    Resume,
    SpeechOptions,
    VadResult,
    Word,
)
from serve_app.errors import ClientError
from serve_app.live.resume_point import ResumePoint

SERVICE_RESTART = 1012
"""Close code of a session that the server ends because it stops."""


@dataclass(frozen=True, slots=True)
class Listening:
    """How utterances are found in the audio: by the VAD, or, `manual`, by `FinalizeRequested`."""

    endpoint: Endpoint = Endpoint()  # noqa: RUF009
    prefix_padding_ms: int = 300
    """Audio before speech that its utterance includes."""
    manual: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    options: SpeechOptions


@dataclass(frozen=True, slots=True)
class Resumed(Started):
    """A start that goes on with a session from `point`; the next audio begins at `point.listen`."""

    point: ResumePoint
    age_s: float
    """Since the session began."""


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """From the next utterance on these options, from now on this listening."""

    options: SpeechOptions
    listening: Listening


class AudioReceived(msgspec.Struct, frozen=True, gc=False):
    pcm: bytes


@dataclass(frozen=True, slots=True)
class KeptAlive:
    pass


@dataclass(frozen=True, slots=True)
class FinalizeRequested:
    """End the utterance here; `always` makes one of the latest audio where nobody speaks."""

    always: bool = False


@dataclass(frozen=True, slots=True)
class Cleared:
    """Drop the running utterance and all audio received so far."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    pass


@dataclass(frozen=True, slots=True)
class ClientErred:
    """The client did something wrong; the session ends if the error has a close code."""

    error: ClientError


@dataclass(frozen=True, slots=True)
class ClientVanished:
    pass


@dataclass(frozen=True, slots=True)
class VadAttached:
    pass


@dataclass(frozen=True, slots=True)
class TranscriberAttached:
    pass


@dataclass(frozen=True, slots=True)
class Unserved:
    """No VAD, or no transcriber, has answered for a while."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The utterances without finals crashed two transcribers: they must not be sent again."""


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """The server takes no new sessions and stops in `timeout_s`."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class DrainEnded:
    """The server stops: no more audio is accepted; the words of what was accepted still come."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed; comes about once a second."""


@dataclass(frozen=True, slots=True)
class QualityChanged:
    """The server leaves out more or less (see `admission.ladder`); a fact, and an event."""

    level: int
    reason: str


Fact = (
    Started
    | Reconfigured
    | Cleared
    | AudioReceived
    | KeptAlive
    | FinalizeRequested
    | StopRequested
    | ClientErred
    | ClientVanished
    | VadAttached
    | TranscriberAttached
    | Unserved
    | Quarantined
    | DrainStarted
    | DrainEnded
    | QualityChanged
    | Ticked
    | VadResult
    | Hypothesis
)


class DetectSpeech(msgspec.Struct, frozen=True, gc=False):
    """Give audio to the VAD; see `interfaces.VadInput`."""

    pcm: bytes
    resume: Resume | None


class Recognize(msgspec.Struct, frozen=True, gc=False):
    """Give audio to the transcriber; see `interfaces.Speech`."""

    utterance: int
    pcm: bytes
    ended: bool
    options: SpeechOptions | None


@dataclass(frozen=True, slots=True)
class SpeechBoundary:
    """Speech started or ended at a sample."""

    started: bool
    sample: int


class TranscriptUpdate(msgspec.Struct, frozen=True, gc=False):
    """Words of one utterance, placed in the session."""

    utterance: int
    final: bool
    start: int
    until: int
    words: tuple[Word, ...]
    language: str | None = None
    """The detected language, on a final of an engine that detects it."""
    point: ResumePoint | None = None
    """On a final: where the session can be resumed after it."""


@dataclass(frozen=True, slots=True)
class UtteranceFailed:
    """The engine could not recognise an utterance; stands in the place of its final."""

    utterance: int
    error: ClientError
    point: ResumePoint | None = None


@dataclass(frozen=True, slots=True)
class Resumable:
    """The session can now be resumed from `point`, though no final says so."""

    point: ResumePoint


@dataclass(frozen=True, slots=True)
class UtteranceOpened:
    """An utterance begins at sample `start`."""

    utterance: int
    start: int


@dataclass(frozen=True, slots=True)
class SpeechConfirmed:
    """The present speech is more than a cough."""


@dataclass(frozen=True, slots=True)
class EagerFinal:
    """The words of an utterance, if the person says no more."""

    utterance: int
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """The person goes on: the eager final no longer holds."""

    utterance: int


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """An utterance ends at sample `until`; its final follows. `voice_until` is where the pause
    began that ended it."""

    utterance: int
    until: int
    voice_until: int


@dataclass(frozen=True, slots=True)
class UtteranceDropped:
    """An utterance was cleared; no more events of it follow."""

    utterance: int


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """All audio up to `sample` has been dealt with; answers `KeptAlive`."""

    sample: int


@dataclass(frozen=True, slots=True)
class Draining:
    """The server stops in `deadline_ms`; the session may last until then, or continue elsewhere."""

    deadline_ms: int
    point: ResumePoint | None = None


ServerNotice = Draining | QualityChanged
"""What the server does to its sessions; dialects without such events leave it out."""


@dataclass(frozen=True, slots=True)
class ErrorReport:
    error: ClientError


@dataclass(frozen=True, slots=True)
class SessionMetrics:
    """The counts of a session. Times are in ms."""

    audio_ms: int = 0
    speech_ms: int = 0
    utterances: int = 0
    words: int = 0
    partials: int = 0
    partials_withheld: int = 0
    """Left out because the server was overloaded."""
    finals: int = 0
    failures: int = 0
    errors: int = 0
    replays: int = 0
    final_latency_ms_avg: float = 0.0
    final_latency_ms_max: float = 0.0


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over: send the metrics, then close with `code`."""

    code: int
    metrics: SessionMetrics


UtteranceEvent = (
    UtteranceOpened | SpeechConfirmed | EagerFinal | TurnResumed | UtteranceEnded | UtteranceDropped
)
"""The course of an utterance, for conversations."""


Event = (
    SpeechBoundary
    | TranscriptUpdate
    | UtteranceFailed
    | ProgressReport
    | ServerNotice
    | ErrorReport
    | Close
    | Resumable
    | UtteranceEvent
)
"""For the client, or for the conversation in front of it."""


Order = DetectSpeech | Recognize | Event
