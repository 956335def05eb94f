"""A client of live transcription, `WS /v1/transcribe/stream`, that survives its connections.

It keeps the audio that is not final. When a connection is lost, it opens another one, continues the
session there, and sends that audio again; its user sees one stream of events. docs/clients.md
describes the rules that it follows, for clients in other languages.
"""

from serve_app.client.errors import (
    CertificateUnusable,
    GaveUp,
    HandshakeRefused,
    ResumeRefused,
    SessionFailed,
    SessionOver,
    TranscriptionError,
    Unreachable,
)
from serve_app.client.events import (
    ConnectionResumed,
    ErrorNotice,
    Final,
    Partial,
    QualityNotice,
    Reconnecting,
    SessionClosed,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    TranscribedWord,
    TranscriptionEvent,
)
from serve_app.client.options import LiveOptions
from serve_app.client.pacing import paced
from serve_app.client.transcription import LiveTranscription

__all__ = [
    "CertificateUnusable",
    "ConnectionResumed",
    "ErrorNotice",
    "Final",
    "GaveUp",
    "HandshakeRefused",
    "LiveOptions",
    "LiveTranscription",
    "Partial",
    "QualityNotice",
    "Reconnecting",
    "ResumeRefused",
    "SessionClosed",
    "SessionFailed",
    "SessionOver",
    "SessionStarted",
    "SpeechEnded",
    "SpeechStarted",
    "TranscribedWord",
    "TranscriptionError",
    "TranscriptionEvent",
    "Unreachable",
    "paced",
]
