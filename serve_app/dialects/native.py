"""voxray's own live protocol, `WS /v1/transcribe/stream`. Pure; docs/protocol.md describes it.

A text frame is one JSON object with a `type`; a binary frame is audio. The dialect holds the state
of the wire: the audio format, the next sequence number, and whether a start was refused.
"""

import re
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.audio import InputConverter, RejoiningConverter
from deployments.interfaces import RATE, SpeechOptions, Word
from deployments.interfaces.audio import SAMPLE_BYTES
from serve_app.config import Limits
from serve_app.dialects.frames import Frame, base64_bytes, json_object
from serve_app.errors import ClientError, invalid
from serve_app.live.events import (
    AudioReceived,
    Close,
    Draining,
    ErrorReport,
    Fact,
    FinalizeRequested,
    KeptAlive,
    ProgressReport,
    QualityChanged,
    Resumable,
    Resumed,
    ServerNotice,
    SessionMetrics,
    SpeechBoundary,
    Started,
    StopRequested,
    TranscriptUpdate,
    UtteranceFailed,
)
from serve_app.live.options import EngineInfo, check_options
from serve_app.live.resume_point import ResumePoint
from serve_app.live.transcript import confidence, ms
from serve_app.security.resume_token import (
    MAX_START_CHARS,
    Continued,
    ResumeTokens,
    packed,
    unpacked,
)

TYPES = ("start", "audio_chunk", "finalize", "keepalive", "stop")
MIN_RATE, MAX_RATE = 8_000, 48_000
CHANNELS = (1, 2)
SESSION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Start(BaseModel):
    """The optional first message: audio format and options."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["start"]
    sample_rate: int = RATE
    encoding: str = "pcm_s16le"
    channels: int = 1
    language: str | None = None
    interim_results: bool = True
    session_id: Annotated[str, Field(pattern=f"^{SESSION_ID.pattern}$")] | None = None
    hotwords: list[Annotated[str, Field(min_length=1, max_length=100)]] = []
    grammar: str | None = None


class NativeDialect:
    """One connection's side of the protocol; without `tokens` it cannot be resumed."""

    def __init__(
        self,
        limits: Limits,
        session_id: str,
        engine: EngineInfo,
        tokens: ResumeTokens | None = None,
    ) -> None:
        began = int(tokens.clock()) if tokens else 0
        self.session = Continued(session_id, session_id, 0, began)
        self._tokens = tokens
        self._point = ResumePoint()
        self._limits = limits
        self._engine = engine
        self._start = Start(type="start")
        self._input = InputConverter(RATE, "pcm_s16le", 1)
        self._refused = False
        self._started = False
        self._sequence: int | None = None
        self._rendered: list[tuple[Word, orjson.Fragment]] = []

    @property
    def session_id(self) -> str:
        return self.session.session_id

    # Frames in.

    def parse(self, frame: str | bytes) -> list[Fact]:
        """The frame's facts. Raises `ClientError` for anything outside the protocol."""
        if isinstance(frame, bytes):
            return [self._audio(frame)]
        message = json_object(frame)
        match message.get("type"):
            case "audio_chunk":
                return [self._audio_chunk(message)]
            case "start":
                return [self._on_start(message)]
            case "finalize" | "keepalive" | "stop" as kind:
                _check_no_fields(message)
                return self._control(kind)
            case other:
                raise ClientError(
                    "unknown_type", f"type {_quoted(other)} is not one of {', '.join(TYPES)}"
                )

    def _control(self, kind: Literal["finalize", "keepalive", "stop"]) -> list[Fact]:
        match kind:
            case "finalize":
                return [FinalizeRequested()]
            case "keepalive":
                return [KeptAlive()]
            case "stop":
                return [AudioReceived(self._input.flush()), StopRequested()]

    def _audio_chunk(self, message: Frame) -> AudioReceived:
        data = message.get("data")
        if not isinstance(data, str):
            raise ClientError("invalid_message", "audio_chunk needs data, a base64 string")
        sequence = self._check_sequence(message)
        pcm = base64_bytes(data, "data")
        fact = self._audio(pcm)
        self._sequence = sequence
        return fact

    def _check_sequence(self, message: Frame) -> int:
        sequence = message.get("sequence")
        if sequence is None:
            raise ClientError("missing_sequence", "audio_chunk needs sequence, a whole number")
        if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 0:
            raise ClientError("wrong_sequence", "sequence must be a whole number from 0")
        if self._sequence is not None and sequence != self._sequence + 1:
            raise ClientError(
                "wrong_sequence",
                f"sequence is {sequence} instead of {self._sequence + 1}; the chunk was dropped",
            )
        return sequence

    def _audio(self, pcm: bytes) -> AudioReceived:
        if self._refused:
            raise ClientError("audio_before_start", "start was refused; send a valid start first")
        if len(pcm) > self._limits.max_chunk_bytes:
            raise ClientError(
                "chunk_too_large",
                f"the message has {len(pcm)} bytes of audio; at most "
                f"{self._limits.max_chunk_bytes} are allowed",
            )
        if len(pcm) % self._input.frame_bytes:
            raise ClientError(
                "odd_byte_count",
                f"{len(pcm)} bytes are not whole samples of {self._input.frame_bytes} bytes",
            )
        self._started = True
        return AudioReceived(self._input.push(pcm))

    def _on_start(self, message: Frame) -> Started:
        if self._started:
            raise ClientError("start_not_first", "start must come before any audio, and only once")
        self._refused = True
        begun = self._resume(message) if "resume" in message else self._begin(message)
        self._refused, self._started = False, True
        return begun

    def _begin(self, message: Frame) -> Started:
        options = self._configure(message)
        start = self._start
        self._input = InputConverter(start.sample_rate, start.encoding, start.channels)  # type: ignore[arg-type]
        self.session = self.session._replace(
            session_id=start.session_id or self.session_id,
            start=packed(start.model_dump(exclude_defaults=True, exclude={"type", "session_id"})),
        )
        if len(self.session.start) > MAX_START_CHARS:
            self._tokens = None  # it cannot be resumed, as a token would be too long
        return Started(options)

    def _resume(self, message: Frame) -> Resumed:
        """Goes on with the session of a token. Raises `ClientError`."""
        _check_no_fields(message, "resume")
        if self._tokens is None:
            raise ClientError("resume_refused", "a session of this kind cannot be resumed")
        session, point = self._tokens.opened(message["resume"])
        options = self._configure({"type": "start", **unpacked(session.start)})
        start, skip = self._start, point.listen - point.send_from
        self._input = RejoiningConverter(start.sample_rate, start.encoding, start.channels, skip)  # type: ignore[arg-type]
        self.session, self._point = session._replace(epoch=session.epoch + 1), point
        return Resumed(options, point, self._tokens.clock() - session.began)

    def _configure(self, message: Frame) -> SpeechOptions:
        start = self._checked_start(message)
        options = SpeechOptions(
            start.language, start.interim_results, tuple(start.hotwords), start.grammar
        )
        check_options(options, self._engine, self._limits)
        self._start = start
        return options

    def _checked_start(self, message: Frame) -> Start:
        try:
            start = Start.model_validate(message)
        except ValidationError as error:
            raise invalid(error, message, "invalid_message", "start") from error
        if not MIN_RATE <= start.sample_rate <= MAX_RATE:
            raise ClientError(
                "unsupported_sample_rate",
                f"sample_rate {start.sample_rate} is not from {MIN_RATE} to {MAX_RATE} Hz",
            )
        if start.encoding not in SAMPLE_BYTES:
            raise ClientError(
                "unsupported_encoding",
                f"encoding {_quoted(start.encoding)} is not one of {', '.join(SAMPLE_BYTES)}",
            )
        if start.channels not in CHANNELS:
            raise ClientError("unsupported_channels", f"channels {start.channels} is not 1 or 2")
        return start

    # Events out.

    def hello(self) -> bytes:
        """The session, its limits and its format; sent first, and after an accepted `start`."""
        limits, start = self._limits, self._start
        return orjson.dumps(
            {
                "type": "session",
                "session_id": self.session_id,
                "engine": self._engine.name,
                "sample_rate": start.sample_rate,
                "encoding": start.encoding,
                "channels": start.channels,
                "language": start.language,
                "interim_results": start.interim_results,
                **self._resumed_from(),
                **self._resume_fields(self._point),
                "limits": {
                    "max_chunk_bytes": limits.max_chunk_bytes,
                    "max_buffered_audio_ms": int(limits.max_buffered_audio_s * 1000),
                    "max_utterance_ms": int(limits.max_utterance_s * 1000),
                    "max_session_ms": int(limits.max_session_s * 1000),
                    "max_silence_ms": int(limits.max_silence_s * 1000),
                    "idle_timeout_ms": int(limits.idle_timeout_s * 1000),
                },
            }
        )

    def _resumed_from(self) -> Frame:
        return {"resumed_from_ms": ms(self._point.send_from)} if self.session.epoch else {}

    def _resume_fields(self, point: ResumePoint | None) -> Frame:
        """How the client goes on if it loses this connection: its token, and the audio to keep."""
        if self._tokens is None or point is None:
            return {}
        token = self._tokens.mint(self.session, point)
        return {"resume": token, "resume_from_ms": ms(point.send_from)}

    def render(
        self,
        event: SpeechBoundary
        | TranscriptUpdate
        | UtteranceFailed
        | ProgressReport
        | ServerNotice
        | ErrorReport
        | Resumable
        | Close,
        timestamp: float,
    ) -> bytes:
        """An event as a JSON frame. `timestamp` is in seconds since 1970."""
        match event:
            case TranscriptUpdate():
                return self._transcript(event, timestamp)
            case SpeechBoundary(started, sample):
                return orjson.dumps(
                    {
                        "type": "speech_started" if started else "speech_ended",
                        "audio_ms": ms(sample),
                        "timestamp": timestamp,
                    }
                )
            case ProgressReport(sample):
                return orjson.dumps({"type": "keepalive", "audio_ms": ms(sample)})
            case Draining(deadline_ms, point):
                fields = {"type": "draining", "deadline_ms": deadline_ms}
                return orjson.dumps(fields | self._resume_fields(point))
            case QualityChanged(level, reason):
                return orjson.dumps({"type": "quality", "level": level, "reason": reason})
            case ErrorReport(error):
                return orjson.dumps(_error(error))
            case UtteranceFailed(_, error, point):
                return orjson.dumps(_error(error) | self._resume_fields(point))
            case Resumable(point):
                fields = {"type": "resumable", "audio_ms": ms(point.audio)}
                return orjson.dumps(fields | self._resume_fields(point))
            case Close(_, metrics):
                return self._closed(metrics)

    def _transcript(self, update: TranscriptUpdate, timestamp: float) -> bytes:
        words = update.words
        end_ms = ms(update.until)
        language = {"language": update.language} if update.language else {}
        return orjson.dumps(
            {
                "type": "final" if update.final else "partial",
                "text": " ".join([word[0] for word in words]),
                "timestamp": timestamp,
                "audio_ms": end_ms,
                "start_ms": ms(update.start),
                "end_ms": end_ms,
                "utterance": update.utterance,
                "confidence": confidence(words),
                "words": self._render_words(update.start, words),
                "engine": self._engine.name,
                **language,
                **self._resume_fields(update.point),
            }
        )

    def _render_words(self, start: int, words: tuple[Word, ...]) -> list[orjson.Fragment]:
        """A partial repeats most words of the previous one; those are rendered only once."""
        known, self._rendered = self._rendered, []
        for at, word in enumerate(words):
            if at < len(known) and known[at][0] is word:
                self._rendered.append(known[at])
            else:
                self._rendered.append((word, orjson.Fragment(_render_word(start, word))))
        return [fragment for _, fragment in self._rendered]

    def _closed(self, metrics: SessionMetrics) -> bytes:
        fields = {name: getattr(metrics, name) for name in metrics.__slots__}
        return orjson.dumps({"type": "closed", "session_id": self.session_id, "metrics": fields})


def _render_word(start: int, word: Word) -> bytes:
    return orjson.dumps(
        {
            "word": word.text,
            "start_ms": ms(start + word.start),
            "end_ms": ms(start + word.end),
            "confidence": round(word.confidence, 3),
        }
    )


def _error(error: ClientError) -> Frame:
    return {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "fatal": error.close is not None,
    }


def _check_no_fields(message: Frame, *but: str) -> None:
    """Raises `ClientError` for a message with more than its type, and those of `but`."""
    for name in message.keys() - {"type", *but}:
        param = f"{message['type']}.{name[:64]}"
        raise ClientError("invalid_message", f"{param}: there is no such field", param=param)


def _quoted(value: object) -> str:
    """A client's value, short enough for a message."""
    return repr(value)[:60]
