"""The OpenAI Realtime dialect (GA), `WS /v1/realtime`. Pure: frames to facts, events to frames.

Event names and shapes as in the OpenAI API reference; which of them each stock client needs, and
which liberties of clients are borne, is in docs/realtime.md. Both session types are the same
conversation: one of type `transcription` never replies.
"""

import base64
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from deployments.audio import InputConverter, OutputConverter
from deployments.interfaces import BYTES_PER_SAMPLE, RATE, SpeechOptions
from serve_app.conversation.events import (
    ClientFact,
    Configured,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    ReplyAudioDelta,
    ReplyCallDelta,
    ReplyCancel,
    ReplyCreate,
    ReplyEnded,
    ReplyItemAdded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyTextDelta,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
    TurnEnded,
    TurnStarted,
)
from serve_app.conversation.events import Event as TurnEvent
from serve_app.conversation.history import as_message
from serve_app.conversation.reply import ReplySettings
from serve_app.dialects.frames import AUDIO_TOKEN_MS, base64_bytes, growth, json_object, token_usage
from serve_app.dialects.realtime_items import parse_item, render_item
from serve_app.dialects.realtime_session import RealtimeSession, ReplyShape, encoding
from serve_app.dialects.terms import DialectTerms
from serve_app.dialects.vllm_realtime import VllmDialect
from serve_app.errors import ClientError
from serve_app.live.events import (
    AudioReceived,
    Cleared,
    Close,
    ErrorReport,
    FinalizeRequested,
    Listening,
    Reconfigured,
)
from serve_app.live.events import Fact as SessionFact
from serve_app.live.options import check_language, noted
from serve_app.live.transcript import ms

MIN_COMMIT_SAMPLES = RATE // 10

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImmediateAnswer:
    """A frame to send at once."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class DialectSwitch:
    """From now on the client is spoken to in another dialect."""

    dialect: VllmDialect


Fact = SessionFact | ClientFact | ImmediateAnswer | DialectSwitch


class _Message(NamedTuple):
    """The message of the current reply."""

    place: int
    """Among the reply's items."""
    spoken: bool


class RealtimeDialect:
    """One connection's side of the protocol. Raises `ClientError` for a session that may not be."""

    def __init__(
        self, terms: DialectTerms, session_id: str, session: RealtimeSession, model: str, now: float
    ) -> None:
        self._terms = terms
        self._id = f"sess_{session_id}"
        self.prefix = session_id[:12]
        """Of every id that this session makes."""
        self._model = model
        self._created = int(now)
        self._session = session
        self.settings = self._checked(session)
        self._event = 0
        self._buffered = 0
        """16 kHz samples since the last commit."""
        self._odd = b""
        self._intake = _intake(session)
        self._outlet = _outlet(session)
        self._message = _Message(0, True)
        self._deltas: dict[str, str] = {}
        """What was sent of each transcript that is on its way, from when the client knows of its
        item."""

    @property
    def listening(self) -> Listening:
        return self._session.listening(self._terms.listening)

    @property
    def options(self) -> SpeechOptions:
        return self._session.options()

    def hello(self) -> bytes:
        """Also what vLLM's clients look for: a top-level id and created."""
        created = {"id": self._id, "created": self._created}
        return self._frame("session.created", session=self._shown(), **created)

    # Frames in.

    def parse(self, text: str | bytes) -> list[Fact]:
        """What the event says. Raises `ClientError` for anything outside the protocol."""
        return self._parsed(json_object(text))

    def _parsed(self, event: Frame) -> list[Fact]:
        match event.get("type"):
            case "session.update":
                return self._update(event)
            case "input_audio_buffer.append":
                return [self._append(event)]
            case "input_audio_buffer.commit":
                return self._commit(event)
            case "input_audio_buffer.clear":
                self._buffered = 0
                return [Cleared(), ImmediateAnswer(self._frame("input_audio_buffer.cleared"))]
            case "output_audio_buffer.clear":
                return []  # WebRTC's
            case "conversation.item.create":
                item = parse_item(event.get("item"), self._terms.limits)
                return [ItemCreate(item, string(event, "previous_item_id"))]
            case "conversation.item.delete":
                return [ItemDelete(_required(event, "item_id"))]
            case "conversation.item.retrieve":
                return [ItemRetrieve(_required(event, "item_id"))]
            case "conversation.item.truncate":
                return [self._truncate(event)]
            case "response.create":
                return [self._create(event)]
            case "response.cancel":
                return [ReplyCancel(self._reply_number(string(event, "response_id")))]
        kind = str(event.get("type"))[:80]
        raise ClientError("unknown_type", f"type {kind!r} is not an event of this protocol")

    def _update(self, event: Frame) -> list[Fact]:
        update = event.get("session")
        if update is None and isinstance(event.get("model"), str):
            return [DialectSwitch(VllmDialect(self._terms.revises)), *_plain()]
        if not isinstance(update, dict):
            raise ClientError("missing_required_parameter", "session must be an object")
        session = self._session.merged(update, self._terms.engines)
        self.settings = self._checked(session)
        if session.audio.input.format != self._session.audio.input.format:
            self._intake, self._odd = _intake(session), b""
        if session.audio.output.format != self._session.audio.output.format:
            self._outlet = _outlet(session)
        self._session = session
        return [
            Reconfigured(self.options, self.listening),
            Configured(self.settings),
            ImmediateAnswer(self._frame("session.updated", session=self._shown())),
        ]

    def _checked(self, session: RealtimeSession) -> ReplySettings:
        """How the session's replies are to be. Raises `ClientError` for what it may not ask."""
        terms = self._terms
        check_language(session.options().language, terms.engines.transcriber)
        voice = terms.resolve_voice(session.audio.output.voice_name)
        return session.settings(terms.settings, voice, terms.limits)

    def _append(self, event: Frame) -> AudioReceived:
        """Clients may cut their audio anywhere, also within a sample."""
        pcm = self._odd + decode_audio(event, "audio")
        whole = len(pcm) - len(pcm) % self._intake.frame_bytes
        self._odd = pcm[whole:]
        heard = self._intake.push(pcm[:whole])
        self._buffered += len(heard) // BYTES_PER_SAMPLE
        return AudioReceived(heard)

    def _commit(self, event: Frame) -> list[Fact]:
        if "final" in event:
            dialect = VllmDialect(self._terms.revises)
            return [DialectSwitch(dialect), *_plain(), *dialect.parse(orjson.dumps(event))]
        rest = self._intake.flush()
        self._intake = _intake(self._session)
        samples = self._buffered + len(rest) // BYTES_PER_SAMPLE
        if samples < MIN_COMMIT_SAMPLES:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100 ms "
                f"of audio, but the buffer has {ms(samples)} ms",
            )
        self._buffered = 0
        return [AudioReceived(rest), FinalizeRequested(always=True)]

    def _truncate(self, event: Frame) -> ItemTruncate:
        end_ms = event.get("audio_end_ms")
        if not isinstance(end_ms, int) or isinstance(end_ms, bool) or end_ms < 0:
            raise ClientError("invalid_value", "audio_end_ms must be a whole number from 0")
        if event.get("content_index", 0) != 0:
            raise ClientError("invalid_value", "content_index must be 0: items have one part")
        return ItemTruncate(_required(event, "item_id"), end_ms)

    def _create(self, event: Frame) -> ReplyCreate:
        if self._session.type == "transcription":
            raise ClientError("invalid_value", "a transcription session has no responses")
        shape = ReplyShape.of(event.get("response"))
        session = shape.over(self._session, self._terms.engines)
        settings = replace(self._checked(session), ignored=tuple(session.ignored))
        messages = None
        if shape.input is not None:
            items = [parse_item(item, self._terms.limits) for item in shape.input[:1000]]
            messages = tuple(as_message(item) for item in items)
        return ReplyCreate(settings, messages, shape.conversation != "none", shape.metadata)

    def _reply_number(self, response_id: str | None) -> int | None:
        if response_id is None:
            return None
        number = response_id.removeprefix(f"resp_{self.prefix}")
        return int(number) if number.isdecimal() and len(number) < 19 else -1

    # Events out.

    def render(self, event: TurnEvent | ErrorReport | Close) -> list[bytes]:
        match event:
            case TurnStarted(item, sample):
                self._deltas[item] = ""
                return [
                    self._frame(
                        "input_audio_buffer.speech_started",
                        audio_start_ms=ms(sample),
                        item_id=item,
                    )
                ]
            case TurnEnded(item, sample):
                self._buffered = 0
                return [
                    self._frame(
                        "input_audio_buffer.speech_stopped", audio_end_ms=ms(sample), item_id=item
                    )
                ]
            case ItemAdded():
                return self._item_added(event)
            case ItemDeleted(id_):
                return [self._frame("conversation.item.deleted", item_id=id_)]
            case ItemRetrieved(item_):
                return [self._frame("conversation.item.retrieved", item=render_item(item_))]
            case ItemTruncated(id_, end_ms):
                fields = {"item_id": id_, "content_index": 0, "audio_end_ms": end_ms}
                return [self._frame("conversation.item.truncated", **fields)]
            case TranscriptPartial() | TranscriptFinal() | TranscriptFailed():
                return self._transcription(event)
            case ErrorReport(error):
                # what ends a session is said by the close code: clients take `error` for their own
                return [] if error.close is not None else [self.error(error)]
            case Close():
                return []
        return self._of_reply(event)

    def error(self, error: ClientError, event_id: str | None = None) -> bytes:
        shown = error.body()["error"] | {"event_id": event_id}
        return self._frame("error", error=shown)

    def _item_added(self, told: ItemAdded) -> list[bytes]:
        item = render_item(told.item)
        place = {"previous_item_id": told.after}
        frames = []
        if told.committed:
            self._deltas.setdefault(told.item.id, "")
            frames.append(
                self._frame("input_audio_buffer.committed", item_id=told.item.id, **place)
            )
        frames.append(self._frame("conversation.item.added", item=item, **place))
        frames.append(self._frame("conversation.item.done", item=item, **place))
        return frames

    def _transcription(
        self, event: TranscriptPartial | TranscriptFinal | TranscriptFailed
    ) -> list[bytes]:
        """A realtime session that did not ask for transcripts gets none."""
        kind = "conversation.item.input_audio_transcription"
        live = self._session.type == "transcription"
        if not live and self._session.audio.input.transcription is None:
            return []
        fields = {"item_id": event.item, "content_index": 0}
        match event:
            case TranscriptPartial(item, text):
                if not live or self._terms.revises or item not in self._deltas:
                    return []
                return self._delta(item, text)
            case TranscriptFinal(item, text, audio_ms):
                deltas = self._delta(item, text)
                self._deltas.pop(item, None)
                usage = _usage(audio_ms, text)
                done = self._frame(f"{kind}.completed", transcript=text, usage=usage, **fields)
                return [*deltas, done]
            case TranscriptFailed(item, error):
                self._deltas.pop(item, None)
                shown = error.body()["error"]
                return [self._frame(f"{kind}.failed", error=shown, **fields)]

    def _delta(self, item: str, text: str) -> list[bytes]:
        delta = growth(self._deltas.get(item, ""), text)
        if not delta:
            return []
        self._deltas[item] = text
        return [
            self._frame(
                "conversation.item.input_audio_transcription.delta",
                item_id=item,
                content_index=0,
                delta=delta,
            )
        ]

    def _of_reply(self, event: Any) -> list[bytes]:
        of = {"response_id": self._response_id(event.reply)}
        match event:
            case ReplyStarted():
                return [self._frame("response.created", response=self._response(event))]
            case ReplyItemAdded():
                return self._reply_item(event, of)
            case ReplyTextDelta(_, item, text):
                kind = "output_audio_transcript" if self._message.spoken else "output_text"
                at = _part(item, self._message.place)
                return [self._frame(f"response.{kind}.delta", delta=text, **of, **at)]
            case ReplyAudioDelta(_, item, pcm):
                at = _part(item, self._message.place)
                return self._sound(self._outlet.push(pcm), of | at)
            case ReplyCallDelta(_, index, item, call_id, arguments):
                fields = {"item_id": item, "output_index": index, "call_id": call_id}
                kind = "response.function_call_arguments.delta"
                return [self._frame(kind, delta=arguments, **fields, **of)] if arguments else []
            case ReplyItemEnded():
                return self._reply_item_ended(event, of)
            case ReplyEnded():
                self._outlet = _outlet(self._session)
                return [
                    self._frame("response.done", response=self._response(event)),
                    self._frame("rate_limits.updated", rate_limits=[]),
                ]
        raise AssertionError(f"{type(event).__name__} has no frame")

    def _sound(self, audio: bytes, fields: Frame) -> list[bytes]:
        delta = base64.b64encode(audio).decode()
        return [self._frame("response.output_audio.delta", delta=delta, **fields)] if audio else []

    def _reply_item(self, told: ReplyItemAdded, of: Frame) -> list[bytes]:
        item = render_item(told.item)
        place = {"output_index": told.index}
        frames = [self._frame("response.output_item.added", item=item, **place, **of)]
        if told.remembered:
            after = {"previous_item_id": told.after}
            frames.append(self._frame("conversation.item.added", item=item, **after))
        if told.item.kind == "message":
            self._message = _Message(told.index, told.item.spoken)
            part, at = _content_part(told.item.spoken, ""), _part(told.item.id, told.index)
            frames.append(self._frame("response.content_part.added", part=part, **at, **of))
        return frames

    def _reply_item_ended(self, told: ReplyItemEnded, of: Frame) -> list[bytes]:
        item, place = told.item, {"output_index": told.index}
        shown = render_item(item)
        frames = self._message_ended(told, of) if item.kind == "message" else []
        if item.kind == "call":
            fields = {"item_id": item.id, "call_id": item.call_id, "name": item.name}
            kind = "response.function_call_arguments.done"
            frames.append(self._frame(kind, arguments=item.arguments, **fields, **place, **of))
        frames.append(self._frame("response.output_item.done", item=shown, **place, **of))
        if told.remembered:
            frames.append(self._frame("conversation.item.done", item=shown))
        return frames

    def _message_ended(self, told: ReplyItemEnded, of: Frame) -> list[bytes]:
        item = told.item
        fields = _part(item.id, told.index) | of
        kind, done = "response.output_audio_transcript.done", {"transcript": item.text}
        frames = []
        if item.spoken:
            frames += self._sound(self._outlet.push(b"", last=True), fields)
            frames.append(self._frame("response.output_audio.done", **fields))
        else:
            kind, done = "response.output_text.done", {"text": item.text}
        frames.append(self._frame(kind, **done, **fields))
        part = _content_part(item.spoken, item.text)
        frames.append(self._frame("response.content_part.done", part=part, **fields))
        return frames

    def _response_id(self, number: int) -> str:
        return f"resp_{self.prefix}{number:04d}"

    def _response(self, event: ReplyStarted | ReplyEnded) -> Frame:
        settings = event.settings
        response: Frame = {
            "id": self._response_id(event.reply),
            "object": "realtime.response",
            "conversation_id": f"conv_{self.prefix}",
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "output_modalities": ["audio" if settings.audio else "text"],
            "max_output_tokens": settings.max_tokens or "inf",
            "metadata": event.metadata,
            "usage": None,
            **noted(settings.ignored),
        }
        if settings.audio:
            format_ = self._session.audio.output.format.model_dump()
            response["audio"] = {"output": {"format": format_, "voice": settings.voice}}
        return response | _outcome(event) if isinstance(event, ReplyEnded) else response

    # The wire.

    def _shown(self) -> Frame:
        expires_at = self._created + int(self._terms.limits.max_session_s)
        return self._session.shown(self._id, self._model, self._terms.settings.voice, expires_at)

    def _frame(self, type_: str, **fields: Any) -> bytes:
        self._event += 1
        return orjson.dumps(
            {"type": type_, "event_id": f"event_{self.prefix}{self._event:06d}", **fields}
        )


def string(event: Frame, field: str) -> str | None:
    value = event.get(field)
    if value is not None and not isinstance(value, str):
        raise ClientError("invalid_value", f"{field} must be a string")
    return value


def _required(event: Frame, field: str) -> str:
    value = string(event, field)
    if not value:
        raise ClientError("missing_required_parameter", f"{field} must be there")
    return value


def decode_audio(event: Frame, field: str) -> bytes:
    audio = event.get(field)
    if not isinstance(audio, str):
        raise ClientError("missing_required_parameter", f"{field} must be a base64 string")
    return base64_bytes(audio, field)


def _intake(session: RealtimeSession) -> InputConverter:
    return InputConverter(*encoding(session.audio.input.format), 1)


def _outlet(session: RealtimeSession) -> OutputConverter:
    return OutputConverter(*encoding(session.audio.output.format))


def _plain() -> list[Fact]:
    """vLLM's clients say themselves where an utterance ends, and want no replies."""
    return [
        Reconfigured(SpeechOptions(), Listening(manual=True)),
        Configured(ReplySettings(reply=False, hands_free=False)),
    ]


def _part(item: str, index: int) -> Frame:
    return {"item_id": item, "output_index": index, "content_index": 0}


def _content_part(spoken: bool, text: str) -> Frame:
    return {"type": "audio", "transcript": text} if spoken else {"type": "text", "text": text}


def _usage(audio_ms: int, text: str) -> Frame:
    usage = token_usage(audio_ms, text)
    details = {"audio_tokens": usage["input_tokens"], "text_tokens": 0}
    return {**usage, "input_token_details": details}


def _outcome(ended: ReplyEnded) -> Frame:
    details: Frame | None = None
    if ended.status != "completed":
        details = {"type": ended.status, "reason": ended.reason}
    if ended.error:
        details = {"type": "failed", "error": ended.error.body()["error"]}
    asked, written = ended.tokens
    spoken = ended.audio_ms * 2 // AUDIO_TOKEN_MS  # 50 ms each, as OpenAI counts what is spoken
    return {
        "status": ended.status,
        "status_details": details,
        "output": [render_item(item) for item in ended.items],
        "stages": ended.stages._asdict(),
        "usage": {
            "total_tokens": asked + written + spoken,
            "input_tokens": asked,
            "output_tokens": written + spoken,
            "input_token_details": {"text_tokens": asked, "audio_tokens": 0, "cached_tokens": 0},
            "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
        },
    }
