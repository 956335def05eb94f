"""One session over several connections: what of the server's messages is new to the user, what is
final, and what the end of a connection means. Pure.

A connection that resumes starts before the place where the last one broke, so that the server says
some things again. What was said is known by its place in the audio and by its utterance's number,
never by its text: a model may word the same audio differently.
"""

from typing import Any

from serve_app.client.errors import SessionFailed
from serve_app.client.events import (
    ErrorNotice,
    Final,
    Partial,
    QualityNotice,
    SessionClosed,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    event_of,
)

NORMAL_CLOSURE = 1000
FATAL_CLOSURES = (1002, 1003, 1007, 1008, 1009)
"""The server objects to what this client does, and would again."""
TRANSIENT = ("server_restarting", "too_many_sessions", "overloaded")
"""Codes of errors that another connection, perhaps later, does away with."""
REPLACED = "session_resumed"


class Continuity:
    """Fed with the messages of each connection, in order."""

    def __init__(self) -> None:
        self.token: str | None = None
        """Continues the session after all that is final."""
        self.progress_ms = 0
        """The server has dealt with the audio up to here."""
        self.draining = False
        self.contested = False
        """This client has tried to continue the session on another connection."""
        self._fatal: SessionFailed | None = None
        self._closed: SessionClosed | None = None
        self._speaking = self._awaits_final = False
        self._shown_speaking = False
        self._boundary_ms = -1
        self._final = (-1, -1)
        self._partial = (-1, -1)
        self._level = 0

    @property
    def quiet(self) -> bool:
        """Nobody speaks, and all that was said is final: the moment to change the server."""
        return not self._speaking and not self._awaits_final

    @property
    def any_final(self) -> bool:
        return self._final[0] >= 0

    def joined(self, session: dict[str, Any]) -> list[TranscriptionEvent]:
        """A connection stands; `session` is the answer to its `start`."""
        self.token = session.get("resume")
        self.progress_ms = session.get("resumed_from_ms", 0)
        self.draining = self.contested = self._speaking = self._awaits_final = False
        self._fatal = self._closed = None
        was, self._level = self._level, 0
        return [QualityNotice(0, "another connection")] if was else []

    def on(self, frame: dict[str, Any]) -> TranscriptionEvent | None:
        """What the user gets to see of a message."""
        self._follow(frame)
        match event := event_of(frame):
            case ErrorNotice(code, message) if frame["fatal"]:
                self._fatal = SessionFailed(code, message)
            case SessionClosed():
                self._closed = event
                return event if self._fatal and not self._passes(self._fatal.code) else None
            case Partial() | Final() | SpeechStarted() | SpeechEnded():
                return event if self._is_new(event) else None
            case QualityNotice(level):
                self._level = level
                return event
            case ErrorNotice():
                return event
        return None

    def ended(self, close_code: int) -> SessionClosed | None:
        """The connection was closed: the session's last event, or None if it goes on elsewhere.

        Raises `SessionFailed`.
        """
        if self._fatal and not self._passes(self._fatal.code):
            raise SessionFailed(self._fatal.code, str(self._fatal))
        if close_code in FATAL_CLOSURES and not self._fatal:
            raise SessionFailed("closed", f"the server closed the connection with {close_code}")
        return self._closed if close_code == NORMAL_CLOSURE else None

    def _passes(self, code: str) -> bool:
        return code in TRANSIENT or (code == REPLACED and self.contested)

    def _follow(self, frame: dict[str, Any]) -> None:
        """What a message says about the session itself."""
        self.token = frame.get("resume", self.token)
        self.progress_ms = max(self.progress_ms, frame.get("audio_ms", 0))
        match frame["type"]:
            case "draining":
                self.draining = True
            case "speech_started":
                self._speaking = self._awaits_final = True
            case "speech_ended":
                self._speaking = False
            case "partial":
                self._awaits_final = True
            case "final" | "error":
                self._awaits_final = False

    def _is_new(self, event: Partial | Final | SpeechStarted | SpeechEnded) -> bool:
        match event:
            case SpeechStarted(audio_ms):
                return not self._shown_speaking and self._crossed(audio_ms)
            case SpeechEnded(audio_ms):
                return self._shown_speaking and self._crossed(audio_ms)
            case Final():
                return self._said_finally(event)
            case Partial():
                return self._said(event)

    def _crossed(self, audio_ms: int) -> bool:
        if audio_ms <= self._boundary_ms:
            return False
        self._boundary_ms = audio_ms
        self._shown_speaking = not self._shown_speaking
        return True

    def _said_finally(self, final: Final) -> bool:
        utterance, until_ms = self._final
        if final.utterance <= utterance or final.end_ms <= until_ms:
            return False
        self._final = (final.utterance, final.end_ms)
        return True

    def _said(self, partial: Partial) -> bool:
        """A partial that covers less than an earlier one would take back words."""
        at = (partial.utterance, partial.audio_ms)
        if partial.utterance <= self._final[0] or at < self._partial:
            return False
        self._partial = at
        return True
