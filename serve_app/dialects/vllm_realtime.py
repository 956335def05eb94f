"""vLLM's realtime dialect, on the URL of OpenAI's. Pure.

As in vLLM 0.33, `entrypoints/speech_to_text/realtime`: 16 kHz audio, and the client says where an
utterance ends. Audio may come before the first `commit`, which only means: begin; a `commit` with
`final` ends the utterance. The deltas joined are the final. As in vLLM, unknown fields of an event
are accepted and have no effect.
"""

import binascii
from dataclasses import dataclass

import orjson

from deployments.interfaces import SpeechOptions
from serve_app.conversation.events import (
    Configured,
    Event,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
)
from serve_app.conversation.reply import ReplySettings
from serve_app.dialects.frames import Frame, growth, json_object
from serve_app.errors import ClientError
from serve_app.live.events import (
    AudioReceived,
    Close,
    ErrorReport,
    Fact,
    FinalizeRequested,
    Listening,
    Reconfigured,
    ServerNotice,
)

TOKENS_PER_SECOND = 12.5
"""Of audio, as Voxtral counts them."""


class VllmDialect:
    """One connection's side of the protocol, after a `session.update` with a top-level `model`."""

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
        kind = str(event.get("type"))[:80]
        raise ClientError("unknown_event", f"type {kind!r} is not an event of vLLM's protocol")

    def _append(self, event: Frame) -> AudioReceived:
        try:
            pcm = self._odd + binascii.a2b_base64(event.get("audio") or "", strict_mode=True)
        except (ValueError, TypeError) as error:
            raise ClientError("invalid_audio", "audio is not base64 of pcm16") from error
        whole = len(pcm) - len(pcm) % 2
        self._odd = pcm[whole:]
        return AudioReceived(pcm[:whole])

    def render(self, event: Event | ServerNotice | ErrorReport | Close) -> list[bytes]:
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


@dataclass(frozen=True, slots=True)
class DialectSwitch:
    """From now on the client's dialect is vLLM's."""

    dialect: VllmDialect

    def settings(self) -> tuple[Reconfigured, Configured]:
        """The client decides where an utterance ends, and gets no replies."""
        return (
            Reconfigured(SpeechOptions(), Listening(manual=True)),
            Configured(ReplySettings(reply=False, hands_free=False)),
        )


def _done(text: str, audio_ms: int) -> bytes:
    prompt, completion = int(audio_ms / 1000 * TOKENS_PER_SECOND), len(text.split())
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return orjson.dumps({"type": "transcription.done", "text": text, "usage": usage})
