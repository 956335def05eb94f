"""What the user of a live session gets to see, no matter what happens to its connections. Pure.

The fields are those of the wire: docs/protocol.md describes them. All positions are milliseconds of
audio since the session began.
"""

from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The first event. `limits` are the server's."""

    session_id: str
    engine: str
    sample_rate: int
    encoding: str
    channels: int
    language: str | None
    limits: dict[str, int]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    audio_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    audio_ms: int


@dataclass(frozen=True, slots=True)
class TranscribedWord:
    word: str
    start_ms: int
    end_ms: int
    confidence: float


@dataclass(frozen=True, slots=True)
class _Words:
    """Of one utterance."""

    text: str
    timestamp: float
    audio_ms: int
    start_ms: int
    end_ms: int
    utterance: int
    confidence: float
    words: list[TranscribedWord]
    engine: str


@dataclass(frozen=True, slots=True)
class Partial(_Words):
    """The words of the current utterance so far; replaces the previous partial."""


@dataclass(frozen=True, slots=True)
class Final(_Words):
    """The words of an utterance. Finals come in the order of speech and never change."""

    language: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorNotice:
    """Something failed, as an utterance; the session continues."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class QualityNotice:
    """The server is busy and does less for this session, or everything again (level 0)."""

    level: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """There is no connection, for this reason; in `wait_s` the client tries to open one."""

    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class ConnectionResumed:
    """The session continues; audio from `from_ms` on is sent again."""

    from_ms: int
    away_s: float


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The last event. The `metrics` count what the last connection's server did."""

    metrics: dict[str, Any]


TranscriptionEvent = (
    SessionStarted
    | SpeechStarted
    | SpeechEnded
    | Partial
    | Final
    | ErrorNotice
    | QualityNotice
    | Reconnecting
    | ConnectionResumed
    | SessionClosed
)

KINDS: dict[str, type[TranscriptionEvent]] = {
    "speech_started": SpeechStarted,
    "speech_ended": SpeechEnded,
    "partial": Partial,
    "final": Final,
    "error": ErrorNotice,
    "quality": QualityNotice,
    "closed": SessionClosed,
}


def started(session: dict[str, Any]) -> SessionStarted:
    return msgspec.convert(session, SessionStarted)


def event_of(frame: dict[str, Any]) -> TranscriptionEvent | None:
    """A message of the server as an event; None for one that is not for the user.

    Messages and fields that a newer server adds are ignored.
    """
    kind = KINDS.get(frame["type"])
    return msgspec.convert(frame, kind) if kind else None
