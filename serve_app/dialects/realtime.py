"""The OpenAI Realtime dialect (GA), `WS /v1/realtime`. Pure: messages to facts, events to messages.

Event names and shapes as in the OpenAI API reference; docs/realtime.md lists what each event does
here. Both session types are the same conversation: one of type `transcription` never replies.
"""

from collections.abc import Callable
from dataclasses import replace

from deployments.interfaces import SpeechOptions
from serve_app.conversation.events import (
    ClientFact,
    Configured,
    Event,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ReplyCancel,
    ReplyCreate,
    TurnEnded,
)
from serve_app.conversation.history import as_message
from serve_app.conversation.reply import ReplySettings
from serve_app.dialects.frames import Frame, ImmediateAnswer, json_object
from serve_app.dialects.realtime_audio import InputBuffer
from serve_app.dialects.realtime_items import parse_item
from serve_app.dialects.realtime_replies import ReplyEvents
from serve_app.dialects.realtime_server_events import ServerEvents
from serve_app.dialects.realtime_session import RealtimeSession, ReplyShape
from serve_app.dialects.realtime_writer import EventWriter
from serve_app.dialects.terms import DialectTerms
from serve_app.dialects.vllm_realtime import DialectSwitch, VllmDialect
from serve_app.errors import ClientError
from serve_app.live.events import (
    AudioReceived,
    Cleared,
    Close,
    ErrorReport,
    FinalizeRequested,
    Listening,
    Reconfigured,
    ServerNotice,
)
from serve_app.live.events import Fact as SessionFact
from serve_app.live.options import check_language

Fact = SessionFact | ClientFact | ImmediateAnswer | DialectSwitch


class RealtimeDialect:
    """One connection's side of the protocol. Raises `ClientError` for an invalid session."""

    def __init__(
        self,
        terms: DialectTerms,
        session_id: str,
        session: RealtimeSession,
        model: str,
        now: float,
        may_reply: bool = True,
    ) -> None:
        """`may_reply`: else the session can only be one of type `transcription`."""
        self._terms = terms
        self._may_reply = may_reply
        self.id = f"sess_{session_id}"
        self.prefix = session_id[:12]
        """Of every id that this session makes."""
        self._model = model
        self._created = int(now)
        self._session = session
        self.settings = self._checked(session)
        audio = session.audio
        self._input = InputBuffer(audio.input.format)
        self._write = EventWriter(self.prefix)
        self._replies = ReplyEvents(self._write, self.prefix, audio.output.format)
        self._events = ServerEvents(self._write, self._replies, terms.revises)

    def tell_limits(self, rate_limits: Callable[[], list[Frame]]) -> None:
        """After each reply."""
        self._replies.rate_limits = rate_limits

    @property
    def listening(self) -> Listening:
        return self._session.listening(self._terms.listening)

    @property
    def options(self) -> SpeechOptions:
        return self._session.options()

    def session(self) -> Frame:
        """The session object of the server's events."""
        expires_at = self._created + int(self._terms.limits.max_session_s)
        voice = self._terms.settings.voice
        return self._session.rendered(self.id, self._model, voice, expires_at)

    def hello(self) -> bytes:
        """The first event. vLLM's clients look for a top-level id and created."""
        created = {"id": self.id, "created": self._created}
        return self._write("session.created", session=self.session(), **created)

    def render(self, event: Event | ServerNotice | ErrorReport | Close) -> list[bytes]:
        if isinstance(event, TurnEnded):
            self._input.clear()
        return self._events.render(event, self._session)

    def error(self, error: ClientError, event_id: str | None = None) -> bytes:
        return self._events.error(error, event_id)

    def parse(self, text: str | bytes) -> list[Fact]:
        """The facts of a client's event. Raises `ClientError` for anything outside the protocol."""
        event = json_object(text)
        match event.get("type"):
            case "session.update":
                return self._update(event)
            case "input_audio_buffer.append":
                return [AudioReceived(self._input.append(event))]
            case "input_audio_buffer.commit":
                return self._commit(event, text)
            case "input_audio_buffer.clear":
                self._input.clear()
                return [Cleared(), ImmediateAnswer(self._write("input_audio_buffer.cleared"))]
            case "output_audio_buffer.clear":
                return []  # only for WebRTC
            case "conversation.item.create":
                item = parse_item(event.get("item"), self._terms.limits)
                return [ItemCreate(item, _string(event, "previous_item_id"))]
            case "conversation.item.delete":
                return [ItemDelete(_required(event, "item_id"))]
            case "conversation.item.retrieve":
                return [ItemRetrieve(_required(event, "item_id"))]
            case "conversation.item.truncate":
                return [_truncate(event)]
            case "response.create":
                return [self._create(event)]
            case "response.cancel":
                return [ReplyCancel(self._replies.number(_string(event, "response_id")))]
        kind = str(event.get("type"))[:80]
        raise ClientError("unknown_type", f"type {kind!r} is not an event of this protocol")

    def _update(self, event: Frame) -> list[Fact]:
        update = event.get("session")
        if update is None and isinstance(event.get("model"), str):
            return self._switch()
        if not isinstance(update, dict):
            raise ClientError("missing_required_parameter", "session must be an object")
        session = self._session.merged(update, self._terms.engines)
        if session.type != "transcription" and not self._may_reply:
            reason = "session.type: this key allows only transcription"
            raise ClientError("invalid_value", reason, param="session.type")
        self.settings = self._checked(session)
        self._input.change_format(session.audio.input.format)
        self._replies.change_format(session.audio.output.format)
        self._session = session
        return [
            Reconfigured(self.options, self.listening),
            Configured(self.settings),
            ImmediateAnswer(self._write("session.updated", session=self.session())),
        ]

    def _commit(self, event: Frame, text: str | bytes) -> list[Fact]:
        if "final" in event:
            return self._switch(text)
        return [AudioReceived(self._input.commit()), FinalizeRequested(always=True)]

    def _switch(self, text: str | bytes | None = None) -> list[Fact]:
        """To vLLM's dialect, which also reads `text`."""
        switch = DialectSwitch(VllmDialect(self._terms.revises))
        facts = switch.dialect.parse(text) if text else []
        return [switch, *switch.settings(), *facts]

    def _create(self, event: Frame) -> ReplyCreate:
        if self._session.type == "transcription":
            raise ClientError("invalid_value", "a transcription session has no responses")
        shape = ReplyShape.of(event.get("response"))
        session = shape.over(self._session, self._terms.engines)
        settings = replace(self._checked(session), ignored=tuple(session.ignored))
        messages = None
        if shape.input is not None:
            items = [parse_item(item, self._terms.limits) for item in shape.input]
            messages = tuple(as_message(item) for item in items)
        return ReplyCreate(settings, messages, shape.conversation != "none", shape.metadata)

    def _checked(self, session: RealtimeSession) -> ReplySettings:
        """The settings of the session's replies. Raises `ClientError` if they are not allowed."""
        terms = self._terms
        check_language(session.options().language, terms.engines.transcriber)
        voice = terms.resolve_voice(session.audio.output.voice_name)
        return session.settings(terms.settings, voice, terms.limits)


def _truncate(event: Frame) -> ItemTruncate:
    end_ms = event.get("audio_end_ms")
    if not isinstance(end_ms, int) or isinstance(end_ms, bool) or end_ms < 0:
        raise ClientError("invalid_value", "audio_end_ms must be a whole number from 0")
    if event.get("content_index", 0) != 0:
        raise ClientError("invalid_value", "content_index must be 0: items have one part")
    return ItemTruncate(_required(event, "item_id"), end_ms)


def _string(event: Frame, field: str) -> str | None:
    value = event.get(field)
    if value is not None and not isinstance(value, str):
        raise ClientError("invalid_value", f"{field} must be a string")
    return value


def _required(event: Frame, field: str) -> str:
    value = _string(event, field)
    if not value:
        raise ClientError("missing_required_parameter", f"{field} must be a string, not empty")
    return value
