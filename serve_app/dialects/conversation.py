"""The conversation dialect, `WS /ws`: an utterance in; its transcript, reply and speech out. Pure.

Every message is a JSON object with a `type`. One `audio` message is one turn; docs/realtime.md has
the fields. Over TCP, the same turn has one answer, `result` (`ResultDialect`).
"""

import base64
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.audio import InputConverter, parse_wav, wav_header
from deployments.interfaces import BYTES_PER_SAMPLE, RATE, VOICE_RATE, Option, SpeechOptions
from serve_app.config import Limits
from serve_app.conversation.events import (
    ClientFact,
    Configured,
    Event,
    ReplyAudioDelta,
    ReplyCancel,
    ReplyEnded,
    ReplyStarted,
    ReplyTextDelta,
    TranscriptFailed,
    TranscriptFinal,
)
from serve_app.dialects.conversation_start import KeptSession
from serve_app.dialects.frames import Frame, ImmediateAnswer, base64_bytes, json_object
from serve_app.dialects.terms import DialectTerms
from serve_app.errors import ClientError, invalid
from serve_app.live.events import (
    AudioReceived,
    Close,
    Draining,
    ErrorReport,
    FinalizeRequested,
    Listening,
    QualityChanged,
    Reconfigured,
    ServerNotice,
)
from serve_app.live.events import Fact as SessionFact
from serve_app.live.options import check_options, listed, noted
from serve_app.security.resume_token import ResumeTokens

UNUSED: dict[str, tuple[str, ...]] = {
    "transcribe": ("prompt", "voice", "speed", "speak", "stream"),
    "understand": ("voice", "speed", "speak", "stream"),
    "conversation": (),
}
"""Fields that a mode does not use."""

MAX_AUDIO_S = 60.0
"""Maximum of one message."""


class Undecoded(BaseModel):
    """Audio in a container, to be decoded outside of the event loop, then passed to `on_audio`."""

    model_config = ConfigDict(frozen=True)

    file: bytes


class Recalled(BaseModel):
    """A conversation continues: its history is to be read."""

    model_config = ConfigDict(frozen=True)


Fact = SessionFact | ClientFact | ImmediateAnswer | Undecoded | Recalled


class ConversationAudio(BaseModel):
    """One utterance of the client."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["audio"]
    audio_data: str
    mode: Literal["transcribe", "understand", "conversation"] = "conversation"
    prompt: Annotated[str, Field(max_length=4000)] = ""
    voice: str | None = None
    speed: float = Field(1.0, ge=0.5, le=2.0)
    language: str | None = None
    sample_rate: int | None = Field(None, ge=8000, le=48_000)
    """Of raw pcm_s16le mono; without it the audio must be a WAV or another container."""
    stream: bool = False
    """Speech and text come in pieces, as they are produced."""
    speak: bool = True
    """False: the reply is text only."""


class ConversationDialect:
    """One connection's side of the protocol."""

    def __init__(
        self,
        terms: DialectTerms,
        session_id: str,
        engines: Frame,
        understands: bool,
        tokens: ResumeTokens | None = None,
    ) -> None:
        self.kept = KeptSession(tokens)
        self.prefix = session_id[:12]
        self.turns = 0
        """That have ended."""
        self._begun = False
        self._terms = terms
        self.session_id = session_id
        self._engines = engines
        self._understands = understands
        self._request = ConversationAudio(type="audio", audio_data="")
        self._ignored: list[str] = []
        self._awaiting = self._replying = False
        self._text: list[str] = []
        self._audio_out: list[bytes] = []

    listening = Listening(manual=True)

    @property
    def settings(self) -> Any:
        request = self._request
        return replace(
            self._terms.settings,
            voice=self._terms.resolve_voice(request.voice),
            speed=request.speed,
            audio=request.speak,
            reply=request.mode == "conversation",
            hands_free=False,
            instructions=request.prompt or self._terms.settings.instructions,
        )

    def hello(self, items: int | None = None) -> bytes:
        """Sent first, and after an accepted `start`; `items`: of a history that continues."""
        limits = self._limits
        continues = {} if items is None else {"items": items}
        return orjson.dumps(
            _message(
                "connection",
                status="connected",
                session_id=self.session_id,
                engines=self._engines,
                limits={
                    "max_message_bytes": limits.max_event_bytes,
                    "max_audio_s": int(MAX_AUDIO_S),
                },
                **continues,
                **self.kept.fields(),
            )
        )

    @property
    def _limits(self) -> Limits:
        return self._terms.limits

    # Frames in.

    def parse(self, text: str | bytes) -> list[Fact]:
        """The message's facts. Raises `ClientError` for anything outside the protocol."""
        message = json_object(text)
        match message.get("type"):
            case "audio":
                return self._audio(message)
            case "start":
                return [self._start(message)]
            case "ping":
                return [ImmediateAnswer(orjson.dumps(_message("pong")))]
        kind = str(message.get("type"))[:80]
        raise ClientError("unknown_type", f"type {kind!r} is not one of start, audio, ping")

    def _start(self, message: Frame) -> Recalled | ImmediateAnswer:
        if self._begun:
            raise ClientError("start_not_first", "start must come before any audio, and only once")
        session = self.kept.start(message)
        self.session_id, self._begun = session.session_id, True
        return Recalled() if session.epoch else ImmediateAnswer(self.hello())

    def not_recalled(self) -> None:
        """There is no such history: another `start` may follow."""
        self.kept.session, self._begun = None, False

    def _audio(self, message: Frame) -> list[Fact]:
        if self._awaiting:
            raise ClientError("conversation_busy", "the previous audio is still being recognised")
        request = self._checked(message)
        data = base64_bytes(request.audio_data, "audio_data")
        self._request, self._begun = request, True
        self._ignored = listed(self._unused(message))
        if request.sample_rate:
            return self.on_audio(_resampled(data, request.sample_rate, 1))
        if wav := parse_wav(data):
            rate, channels, pcm = wav
            return self.on_audio(_resampled(pcm, rate, channels))
        return [Undecoded(file=data)]

    def _unused(self, message: Frame) -> list[str]:
        """Fields that are unknown, or that the mode or the engine does not use."""
        mode, chat = self._request.mode, self._terms.engines.chat
        unused = UNUSED[mode]
        if mode == "conversation" and Option.INSTRUCTIONS not in chat.options:
            unused = ("prompt",)
        return [
            name for name in message if name in unused or name not in ConversationAudio.model_fields
        ]

    def on_audio(self, pcm: bytes) -> list[Fact]:
        """An utterance's 16 kHz samples."""
        if not pcm:
            raise ClientError("unreadable_audio", "audio_data contains no audio")
        if len(pcm) > MAX_AUDIO_S * RATE * BYTES_PER_SAMPLE:
            raise ClientError(
                "recording_too_long",
                f"a message has at most {MAX_AUDIO_S:g} s of audio; send longer recordings to "
                "POST /v1/transcribe",
            )
        facts: list[Fact] = [ReplyCancel()] if self._replying else []
        prompt = self._request.prompt if self._request.mode == "understand" else None
        options = SpeechOptions(self._request.language, False, prompt=prompt)
        self._awaiting = True
        return [
            *facts,
            Configured(self.settings),
            Reconfigured(options, self.listening),
            AudioReceived(pcm),
            FinalizeRequested(always=True),
        ]

    def _checked(self, message: Frame) -> ConversationAudio:
        try:
            request = ConversationAudio.model_validate(message)
        except ValidationError as error:
            raise invalid(error, message, "invalid_message", "audio") from error
        if request.mode == "understand" and not self._understands:
            raise ClientError(
                "understanding_unavailable",
                f"engine {self._engines['transcriber']} cannot answer questions about audio; use "
                "mode transcribe or conversation",
            )
        if request.mode == "understand" and not request.prompt:
            raise ClientError("missing_required_parameter", "mode understand needs a prompt")
        self._terms.resolve_voice(request.voice)
        check_options(
            SpeechOptions(request.language), self._terms.engines.transcriber, self._limits
        )
        return request

    # Events out.

    def render(self, event: Event | ServerNotice | ErrorReport | Close) -> list[bytes]:
        return [orjson.dumps(message) for message in self._messages(event)]

    def _messages(self, event: Event | ServerNotice | ErrorReport | Close) -> list[Frame]:
        match event:
            case TranscriptFinal(_, text, audio_ms):
                return self._on_final(text, audio_ms)
            case TranscriptFailed(_, error):
                self._awaiting = False
                return [_error(error), self._complete("failed")]
            case ReplyStarted():
                self._replying = True
                self._text, self._audio_out = [], []
            case ReplyTextDelta(_, _, text):
                self._text.append(text)
                if self._request.stream:
                    return [_message("response_text", text=text, final=False)]
            case ReplyAudioDelta(_, _, pcm):
                if self._request.stream:
                    return [self._speech(pcm, final=False)]
                self._audio_out.append(pcm)
            case ReplyEnded():
                return self._on_ended(event)
            case Draining(deadline_ms):
                return [_message("draining", deadline_ms=deadline_ms, **self.kept.fields())]
            case QualityChanged(level, reason):
                return [_message("quality", level=level, reason=reason)]
            case ErrorReport(error):
                return [_error(error)]
        return []

    def error(self, error: ClientError, event_id: str | None = None) -> bytes:
        return orjson.dumps(_error(error))

    def _on_final(self, text: str, audio_ms: int) -> list[Frame]:
        self._awaiting = False
        if self._request.mode == "understand":
            return [self._response(text), self._complete("completed")]
        transcript = _message(
            "transcription", text=text, audio_ms=audio_ms, language=self._request.language
        )
        if self._request.mode == "transcribe":
            return [transcript, self._complete("completed")]
        return [transcript] if text.strip() else [transcript, self._complete("no_speech")]

    def _on_ended(self, event: ReplyEnded) -> list[Frame]:
        self._replying = False
        frames = [self._response("".join(self._text).strip())]
        if event.settings.audio:
            frames.append(self._speech(b"".join(self._audio_out), final=True))
        self._text, self._audio_out = [], []
        if event.error:
            frames = [_error(event.error)]
        return [*frames, self._complete(event.status, event)]

    def _response(self, text: str) -> Frame:
        return _message("response_text", text=text, final=True)

    def _speech(self, pcm: bytes, final: bool) -> Frame:
        wav = wav_header(VOICE_RATE, len(pcm)) + pcm
        return _message(
            "speech_response",
            audio_data=base64.b64encode(wav).decode(),
            format="wav",
            sample_rate=VOICE_RATE,
            audio_ms=len(pcm) * 1000 // (2 * VOICE_RATE),
            final=final,
        )

    def _complete(self, status: str, event: ReplyEnded | None = None) -> Frame:
        stages = event.stages._asdict() if event else {}
        outcome = {"status": status, "mode": self._request.mode, "stages": stages}
        self.turns += 1
        told = {**outcome, **noted(self._ignored), **self.kept.fields()}
        return _message("conversation_complete", **told)


class ResultDialect(ConversationDialect):
    """The same, but the answer to a turn is one `result` with everything, or an `error`."""

    def __init__(self, *of_a_dialect: Any) -> None:
        super().__init__(*of_a_dialect)
        self._result: Frame = {}

    def _messages(self, event: Event | ServerNotice | ErrorReport | Close) -> list[Frame]:
        return [result for message in super()._messages(event) for result in self._gather(message)]

    def _checked(self, message: Frame) -> ConversationAudio:
        return super()._checked(message).model_copy(update={"stream": False})

    def _gather(self, message: Frame) -> list[Frame]:
        match message["type"]:
            case "transcription":
                self._result["transcription"] = message["text"]
            case "response_text":
                self._result["response_text"] = message["text"]
            case "speech_response":
                self._result |= {
                    key: message[key] for key in ("audio_data", "format", "sample_rate")
                }
            case "error":
                self._result["error"] = {"code": message["code"], "message": message["message"]}
            case "conversation_complete":
                result, self._result = self._result, {}
                outcome = {key: value for key, value in message.items() if key != "type"}
                return [_message("result", **outcome, **result)]
        return []


def _resampled(pcm: bytes, rate: int, channels: int) -> bytes:
    converter = InputConverter(rate, "pcm_s16le", channels)
    return converter.push(pcm[: len(pcm) - len(pcm) % converter.frame_bytes]) + converter.flush()


def _error(error: ClientError) -> Frame:
    return _message("error", code=error.code, message=error.message)


def _message(type_: str, **fields: Any) -> Frame:
    return {"type": type_, **fields}
