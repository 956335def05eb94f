"""`WS /v1/realtime` and `POST /v1/realtime/client_secrets`: the OpenAI Realtime surface."""

import time
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener
from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.backend import Backend
from serve_app.api.sockets.socket import refusal, welcome
from serve_app.api.sockets.spoken import SpokenSocket, conversation_terms
from serve_app.api.sockets.upgrade import Route
from serve_app.conversation.driver import Conversations
from serve_app.dialects.frames import ImmediateAnswer, json_object
from serve_app.dialects.realtime import RealtimeDialect
from serve_app.dialects.realtime_session import RealtimeSession
from serve_app.dialects.vllm_realtime import DialectSwitch, VllmDialect
from serve_app.errors import ClientError
from serve_app.live.events import Started
from serve_app.observability.metrics import Metrics
from serve_app.security import client_secret

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
MAX_QUERY_FIELDS = 20


class ExpiresAfter(BaseModel):
    anchor: str = Field("created_at", pattern="^created_at$")
    seconds: int = Field(600, ge=10, le=7200)


class SecretAsked(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = {}


def router(backend: Backend, conversations: Conversations) -> APIRouter:
    routes = APIRouter(prefix="/v1/realtime", tags=["realtime"])

    @routes.post("/client_secrets")
    async def client_secrets(asked: SecretAsked) -> dict[str, Any]:
        """A key for a browser: it opens realtime sessions, and nothing else, until it expires."""
        now = int(time.time())
        expires_at = now + asked.expires_after.seconds
        session = _session(backend, conversations, asked.session)
        dialect = _dialect(backend, conversations, session, "", now)
        secret = client_secret.mint(backend.secret, asked.session, expires_at, uuid.uuid4().hex)
        return {"value": secret, "expires_at": expires_at, "session": dialect.session()}

    return routes


def route(backend: Backend, conversations: Conversations, metrics: Metrics) -> Route:
    """Answers handshakes: 401 for a secret that is none, 503 where nothing is free."""
    max_bytes = conversations.config.limits.max_event_bytes

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = _offered(request)
        try:
            session = _asked_session(request, offered, backend, conversations)
            conversations.admit()
            model = _query(request, "model")[:100]
            dialect = _dialect(backend, conversations, session, model, time.time())
        except ClientError as error:
            return refusal(error, metrics)
        headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in offered else None
        return welcome(RealtimeSocket(conversations, dialect, metrics, max_bytes), headers)

    return Route(accept, max_bytes)


def _offered(request: WSUpgradeRequest) -> list[str]:
    value = request.headers.get("Sec-WebSocket-Protocol") or ""
    return [protocol.strip() for protocol in value.split(",")]


def _query(request: WSUpgradeRequest, name: str) -> str:
    """Raises `ClientError` for a query with too many fields."""
    try:
        text = urlsplit(request.path.decode("latin-1")).query
        query = parse_qs(text, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        reason = f"the query has more than {MAX_QUERY_FIELDS} fields"
        raise ClientError("invalid_request", reason) from error
    return query.get(name, [""])[0]


def _asked_session(
    request: WSUpgradeRequest, offered: list[str], backend: Backend, conversations: Conversations
) -> RealtimeSession:
    """What the query and, where there is one, the client secret say of the session."""
    update: dict[str, Any] = {}
    if _query(request, "intent") == "transcription":
        update = {"type": "transcription"}
    key = (request.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
    for protocol in offered:
        if protocol.startswith(KEY_SUBPROTOCOL):
            key = protocol.removeprefix(KEY_SUBPROTOCOL)
    if key.startswith(client_secret.PREFIX):
        update |= client_secret.opened(backend.secret, key, time.time())
    return _session(backend, conversations, update)


def _session(
    backend: Backend, conversations: Conversations, update: dict[str, Any]
) -> RealtimeSession:
    session = RealtimeSession(instructions=conversations.config.conversation.instructions)
    return session.merged(update, backend.engines)


def _dialect(
    backend: Backend, conversations: Conversations, session: RealtimeSession, model: str, now: float
) -> RealtimeDialect:
    terms = conversation_terms(backend, conversations)
    return RealtimeDialect(
        terms, uuid.uuid4().hex, session, model or backend.engines.chat.name, now
    )


class RealtimeSocket(SpokenSocket):
    """One connection."""

    def __init__(
        self,
        conversations: Conversations,
        dialect: RealtimeDialect,
        metrics: Metrics,
        max_message_bytes: int,
    ) -> None:
        super().__init__(conversations, metrics, max_message_bytes)
        self._realtime = dialect
        self._dialect: RealtimeDialect | VllmDialect = dialect

    def opened(self) -> None:
        first = self._realtime
        self.send(first.hello())
        self.open_conversation(first.settings, first.listening, first.prefix)
        self.hear(Started(first.options))

    def received(self, message: str | bytes) -> None:
        try:
            for fact in self._dialect.parse(message):
                match fact:
                    case ImmediateAnswer(frame):
                        self.send(frame)
                    case DialectSwitch(dialect):
                        self._dialect = dialect
                    case _:
                        self.feed(fact)
        except ClientError as error:
            self.count(error)
            self.send(self._dialect.error(error, _event_id(message)))

    def render(self, event: Any) -> list[bytes]:
        return self._dialect.render(event)


def _event_id(message: str | bytes) -> str | None:
    """Of the event that was wrong, if it has one."""
    try:
        event_id = json_object(message).get("event_id")
    except ClientError:
        return None
    return event_id[:512] if isinstance(event_id, str) else None
