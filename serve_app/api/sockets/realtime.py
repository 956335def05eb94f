"""`WS /v1/realtime` and `POST /v1/realtime/client_secrets`: the OpenAI Realtime API."""

import time
import uuid
from functools import partial
from typing import Any

from fastapi import APIRouter
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener
from pydantic import BaseModel, ConfigDict, Field

from serve_app.admission.places import Place
from serve_app.api.backend import Backend
from serve_app.api.sockets.query import arrival, query_of
from serve_app.api.sockets.socket import agreed, refusal, welcome
from serve_app.api.sockets.spoken import SpokenSocket, conversation_terms
from serve_app.api.sockets.upgrade import Route
from serve_app.conversation.driver import Conversations
from serve_app.dialects.frames import ImmediateAnswer, json_object
from serve_app.dialects.realtime import RealtimeDialect
from serve_app.dialects.realtime_session import RealtimeSession
from serve_app.dialects.vllm_realtime import DialectSwitch, VllmDialect
from serve_app.errors import ClientError
from serve_app.identity.gate import Gate, check_scopes
from serve_app.identity.principal import EVERYBODY, Caller, Principal, Scope
from serve_app.identity.routes import SOCKETS, Access
from serve_app.live.events import Started
from serve_app.live.options import listed, unknown
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin, origin_of
from serve_app.security import client_secret
from serve_app.security.client_secret import ClientSecret
from serve_app.security.minting import Minting

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
CONVERSES = Access(frozenset({Scope.REALTIME}))


class ExpiresAfter(BaseModel):
    anchor: str = Field("created_at", pattern="^created_at$")
    seconds: int = Field(600, ge=10, le=7200)


class SecretAsked(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = {}


def router(backend: Backend, conversations: Conversations) -> APIRouter:
    routes = APIRouter(prefix="/v1/realtime", tags=["realtime"])
    minting = Minting(conversations.sessions.limits.client_secrets_per_minute)

    @routes.post("/client_secrets")
    async def client_secrets(caller: Caller, asked: SecretAsked) -> dict[str, Any]:
        """A key for a browser: until it expires it opens WebSockets, those for transcription or,
        with a session of type `realtime`, those for conversations."""
        unknown(asked.model_extra)
        now = int(time.time())
        expires_at = _end(asked, caller, now)
        session = _session(backend, conversations, asked.session)
        dialect = _dialect(backend, conversations, session, "", now)
        scope = _scope(session, caller)
        minting.count(caller)
        secret = client_secret.mint(
            backend.keys, asked.session, expires_at, uuid.uuid4().hex, caller, scope
        )
        return {"value": secret, "expires_at": expires_at, "session": dialect.session()}

    return routes


def route(backend: Backend, gate: Gate, conversations: Conversations, metrics: Metrics) -> Route:
    """Each handshake opens a session, or gets 401 for an invalid key, or 503 if none is free."""
    max_bytes = conversations.sessions.limits.max_event_bytes

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        try:
            caller = gate.caller(SOCKETS[PATH], arrival(request))
            query, secret = query_of(request), gate.secret(request.headers)
            session = _requested_session(query, secret, backend, conversations)
            _scope(session, caller)
            place = conversations.admit(caller)
            model = query.get("model", "")[:100]
            dialect = _dialect(backend, conversations, session, model, time.time(), caller)
        except ClientError as error:
            return refusal(error, metrics)
        origin = origin_of(caller, request.headers, "realtime", dialect.id)
        dialect.tell_limits(partial(conversations.sessions.limiter.rate_limits, caller))
        socket = RealtimeSocket(conversations, dialect, metrics, max_bytes, place, origin)
        headers = conversations.sessions.limiter.headers(caller) | agreed(request, SUBPROTOCOL)
        return welcome(socket, headers)

    return Route(accept, max_bytes)


def _end(asked: SecretAsked, caller: Principal, now: int) -> int:
    """A secret lasts no longer than the token that made it."""
    end = now + asked.expires_after.seconds
    return end if caller.expires is None else min(end, int(caller.expires))


def _scope(session: RealtimeSession, caller: Principal) -> Scope:
    """That a session needs. Raises `ClientError` if the caller does not have it."""
    if session.type == "transcription" and Scope.TRANSCRIBE in caller.scopes:
        return Scope.TRANSCRIBE
    check_scopes(caller, CONVERSES)
    return Scope.REALTIME


def _requested_session(
    query: dict[str, str],
    secret: ClientSecret | None,
    backend: Backend,
    conversations: Conversations,
) -> RealtimeSession:
    """The session of the query and the client secret. Query parameters without effect are ignored,
    because clients send those of other servers, too; `session.created` lists them."""
    update: dict[str, Any] = {}
    if query.get("intent") == "transcription":
        update = {"type": "transcription"}
    if secret:
        update |= secret.session
    session = _session(backend, conversations, update)
    unused = [f"query.{name}" for name, value in query.items() if not _is_used(name, value)]
    return session.model_copy(update={"ignored": [*session.ignored, *listed(unused)]})


def _is_used(name: str, value: str) -> bool:
    return name == "model" or (name == "intent" and value in ("", "transcription"))


def _session(
    backend: Backend, conversations: Conversations, update: dict[str, Any]
) -> RealtimeSession:
    session = RealtimeSession(instructions=conversations.config.instructions)
    return session.merged(update, backend.engines)


def _dialect(
    backend: Backend,
    conversations: Conversations,
    session: RealtimeSession,
    model: str,
    now: float,
    caller: Principal = EVERYBODY,
) -> RealtimeDialect:
    terms = conversation_terms(backend, conversations)
    model = model or backend.engines.chat.name
    may_reply = Scope.REALTIME in caller.scopes
    return RealtimeDialect(terms, uuid.uuid4().hex, session, model, now, may_reply)


class RealtimeSocket(SpokenSocket):
    """One connection."""

    def __init__(
        self,
        conversations: Conversations,
        dialect: RealtimeDialect,
        metrics: Metrics,
        max_message_bytes: int,
        place: Place,
        origin: Origin,
    ) -> None:
        super().__init__(conversations, metrics, max_message_bytes, place, origin)
        self._realtime = dialect
        self._dialect: RealtimeDialect | VllmDialect = dialect

    def opened(self) -> None:
        first = self._realtime
        self.send(first.hello())
        self.open_conversation(first.settings, first.listening, first.prefix)
        self.feed(Started(first.options))

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
    """The id of the refused event, if it has one."""
    try:
        event_id = json_object(message).get("event_id")
    except ClientError:
        return None
    return event_id[:512] if isinstance(event_id, str) else None
