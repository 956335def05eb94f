"""vLLM's realtime dialect, on the same URL: 16 kHz, and the client says where it ends. Pure.

As in vLLM 0.33, `entrypoints/speech_to_text/realtime`. Audio may come before the first `commit`,
which only means: begin; a `commit` with `final` ends the utterance. Deltas joined are the final.
"""

import binascii
from typing import Any

import orjson

from serve_app.conversation.events import (
    Event,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
)
from serve_app.dialects.frames import growth, json_object
from serve_app.errors import ClientError
from serve_app.live.events import AudioReceived, Close, ErrorReport, Fact, FinalizeRequested

TOKENS_PER_SECOND = 12.5
"""Of audio, as Voxtral counts it."""


class VllmDialect:
    """One connection's side of it, after a `session.update` with a top-level `model`."""

    def __init__(self, revises: bool) -> None:
        self._revises = revises
        self._sent = ""
        self._odd = b""

    def parse(self, text: str | bytes) -> list[Fact]:
        event = json_object(text)
        match event.get("type"):
            case "session.update":
                return []
            case "input_audio_buffer.append":
                return [self._append(event)]
            case "input_audio_buffer.commit":
                return [FinalizeRequested(always=True)] if event.get("final") else []
        raise ClientError("unknown_event", "this is not an event of vLLM's realtime protocol")

    def _append(self, event: dict[str, Any]) -> AudioReceived:
        try:
            pcm = self._odd + binascii.a2b_base64(event.get("audio") or "", strict_mode=True)
        except (ValueError, TypeError) as error:
            raise ClientError("invalid_audio", "audio is not base64 of pcm16") from error
        whole = len(pcm) - len(pcm) % 2
        self._odd = pcm[whole:]
        return AudioReceived(pcm[:whole])

    def render(self, event: Event | ErrorReport | Close) -> list[bytes]:
        match event:
            case TranscriptPartial(_, text) if not self._revises:
                return self._delta(text)
            case TranscriptFinal(_, text, audio_ms):
                frames = [*self._delta(text), _done(text, audio_ms)]
                self._sent = ""
                return frames
            case TranscriptFailed(_, error):
                self._sent = ""
                return [self.error(error, code="processing_error")]
            case ErrorReport(error) if error.close is None:
                return [self.error(error)]
        return []

    def error(
        self, error: ClientError, event_id: str | None = None, code: str | None = None
    ) -> bytes:
        return orjson.dumps({"type": "error", "error": error.message, "code": code or error.code})

    def _delta(self, text: str) -> list[bytes]:
        delta = growth(self._sent, text)
        if not delta:
            return []
        self._sent = text
        return [orjson.dumps({"type": "transcription.delta", "delta": delta})]


def _done(text: str, audio_ms: int) -> bytes:
    heard, written = int(audio_ms / 1000 * TOKENS_PER_SECOND), len(text.split())
    usage = {
        "prompt_tokens": heard,
        "completion_tokens": written,
        "total_tokens": heard + written,
    }
    return orjson.dumps({"type": "transcription.done", "text": text, "usage": usage})
