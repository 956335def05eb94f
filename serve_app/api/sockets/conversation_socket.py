"""`WS /ws` and the TCP port: one utterance in; its transcript, reply and speech out.

Audio in a container other than WAV is decoded in a separate process, as recordings are.
"""

import tempfile
import time
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from deployments.decoding import Bounds, Undecodable, decode_in_process
from serve_app.admission.places import Place
from serve_app.api.backend import Backend
from serve_app.api.sockets.query import arrival, checked_query
from serve_app.api.sockets.socket import SUBPROTOCOL, agreed, refusal, welcome
from serve_app.api.sockets.spoken import SpokenSocket, conversation_terms
from serve_app.api.sockets.upgrade import Route
from serve_app.conversation.driver import Conversations
from serve_app.conversation.events import ItemCreate
from serve_app.conversation.histories import Histories, Owner
from serve_app.dialects.conversation import (
    MAX_AUDIO_S,
    ConversationDialect,
    Recalled,
    Undecoded,
)
from serve_app.dialects.frames import ImmediateAnswer
from serve_app.errors import ClientError
from serve_app.identity.gate import Gate
from serve_app.identity.routes import SOCKETS
from serve_app.live.fence import REPLACED, Claim
from serve_app.live.takeovers import Takeovers
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin, origin_of
from serve_app.security.resume_token import CONVERSATION, ResumeTokens

PATH = "/ws"

DialectKind = TypeVar("DialectKind", bound=ConversationDialect)


class Keeping(NamedTuple):
    """What it takes to keep conversations, and to continue them."""

    histories: Histories
    takeovers: Takeovers
    history_s: float


def route(
    backend: Backend, gate: Gate, conversations: Conversations, metrics: Metrics, keeping: Keeping
) -> Route:
    """Each handshake opens a conversation, or gets 503 with Retry-After."""
    max_bytes = conversations.sessions.limits.max_event_bytes

    def tokens(tenant: str) -> ResumeTokens:
        return ResumeTokens(backend.keys, tenant, keeping.history_s, time.time, CONVERSATION)

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        try:
            caller = gate.caller(SOCKETS[PATH], arrival(request))
            checked_query(request, ())
            place = conversations.admit(caller)
        except ClientError as error:
            return refusal(error, metrics)
        dialect = new_dialect(ConversationDialect, backend, conversations, tokens(caller.tenant))
        origin = origin_of(caller, request.headers, "conversation", dialect.session_id)
        socket = ConversationSocket(
            conversations, dialect, metrics, max_bytes, place, origin, keeping
        )
        headers = conversations.sessions.limiter.headers(caller) | agreed(request, SUBPROTOCOL)
        return welcome(socket, headers)

    return Route(accept, max_bytes)


def new_dialect(
    kind: type[DialectKind],
    backend: Backend,
    conversations: Conversations,
    tokens: ResumeTokens | None = None,
) -> DialectKind:
    terms = conversation_terms(backend, conversations)
    names = backend.engines.names()
    return kind(terms, uuid.uuid4().hex, names, backend.understands, tokens)


async def decoded(file: bytes) -> bytes:
    """16 kHz mono pcm of an audio file. Raises `ClientError`."""
    with tempfile.NamedTemporaryFile(prefix="voxray-") as temporary:
        temporary.write(file)
        temporary.flush()
        bounds = Bounds(MAX_AUDIO_S, MAX_AUDIO_S)
        try:
            return b"".join([pcm async for pcm in decode_in_process(Path(temporary.name), bounds)])
        except Undecodable as error:
            raise ClientError(error.code, str(error)) from error


class ConversationSocket(SpokenSocket):
    """One connection of `WS /ws`."""

    def __init__(
        self,
        conversations: Conversations,
        dialect: ConversationDialect,
        metrics: Metrics,
        max_message_bytes: int,
        place: Place,
        origin: Origin,
        keeping: Keeping,
    ) -> None:
        super().__init__(conversations, metrics, max_message_bytes, place, origin)
        self._dialect = dialect
        self._keeping = keeping
        self._claim: Claim | None = None
        self._busy = ""
        """Why no message can be taken now, if so."""
        self._turns_kept = 0

    def opened(self) -> None:
        self.send(self._dialect.hello())
        self.open_conversation(
            self._dialect.settings, self._dialect.listening, self._dialect.prefix
        )

    def closed(self) -> None:
        if self._claim:
            self._keeping.takeovers.leave(self._claim)
        super().closed()

    def received(self, message: str | bytes) -> None:
        try:
            if self._busy:
                raise ClientError("conversation_busy", self._busy)
            for fact in self._dialect.parse(message):
                self._take(fact)
        except ClientError as error:
            self._refuse(error)

    def render(self, event: Any) -> list[bytes]:
        frames = self._dialect.render(event)
        if self._turns_kept != self._dialect.turns:
            self._turns_kept = self._dialect.turns
            self._keep()
        return frames

    def _take(self, fact: Any) -> None:
        match fact:
            case ImmediateAnswer(frame):
                self._enter()
                self.send(frame)
            case Undecoded(file=file):
                self._busy = "the previous audio is still being decoded"
                self._work(self._decode(file))
            case Recalled():
                self._busy = "the history is still being read"
                self._work(self._recall())
            case _:
                self.feed(fact)

    def _refuse(self, error: ClientError) -> None:
        self.count(error)
        self.send(self._dialect.error(error))

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        self._conversations.start(work, self.end, self._origin.ids())

    async def _decode(self, file: bytes) -> None:
        try:
            for fact in self._dialect.on_audio(await decoded(file)):
                self._take(fact)
        except ClientError as error:
            self._refuse(error)
        finally:
            self._busy = ""

    # A conversation that is kept.

    @property
    def _owner(self) -> Owner | None:
        kept = self._dialect.kept
        return Owner(kept.tenant, kept.session.origin) if kept.session else None

    def _keep(self) -> None:
        session = self._dialect.kept.session
        if session and self._owner and self._conversation:
            items = self._conversation.items
            self._keeping.histories.keep(self._owner, session.epoch, items)

    def _enter(self) -> bool:
        """Whether this is the newest connection to the conversation; if so, an older one ends."""
        session, conversation = self._dialect.kept.session, self._conversation
        if self._claim or not (session and conversation and conversation.live):
            return True
        self._claim = claim = Claim(session.origin, session.epoch, time.time())
        return self._keeping.takeovers.resume(claim, claim, conversation.live.fail)

    async def _recall(self) -> None:
        try:
            owner = self._owner
            assert owner
            items = await self._keeping.histories.recall(owner)
            items = items[-self._conversations.sessions.limits.max_items :]
            if not self._enter():
                return self.end(REPLACED)
            for item in items:
                self.feed(ItemCreate(item, None))
            self.send(self._dialect.hello(len(items)))
        except ClientError as error:
            self._dialect.not_recalled()
            self._refuse(error)
        finally:
            self._busy = ""
