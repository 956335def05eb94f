"""`WS /ws` and the TCP port: one utterance in; its transcript, reply and speech out.

Audio in a container other than WAV is decoded in a separate process, as recordings are.
"""

import tempfile
import uuid
from pathlib import Path
from typing import Any

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from deployments.decoding import Bounds, Undecodable, decode_in_process
from serve_app.admission.places import Place
from serve_app.api.backend import Backend
from serve_app.api.sockets.query import checked_query
from serve_app.api.sockets.socket import refusal, welcome
from serve_app.api.sockets.spoken import SpokenSocket, conversation_terms
from serve_app.api.sockets.upgrade import Route
from serve_app.conversation.driver import Conversations
from serve_app.dialects.conversation import MAX_AUDIO_S, ConversationDialect, Undecoded
from serve_app.dialects.frames import ImmediateAnswer
from serve_app.errors import ClientError
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin, origin_of

PATH = "/ws"


def route(backend: Backend, conversations: Conversations, metrics: Metrics) -> Route:
    """Each handshake opens a conversation, or gets 503 with Retry-After."""
    max_bytes = conversations.sessions.limits.max_event_bytes

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        try:
            checked_query(request, ())
            place = conversations.admit()
        except ClientError as error:
            return refusal(error, metrics)
        dialect = new_dialect(ConversationDialect, backend, conversations)
        origin = origin_of(request.headers, "conversation", dialect.session_id)
        socket = ConversationSocket(conversations, dialect, metrics, max_bytes, place, origin)
        return welcome(socket)

    return Route(accept, max_bytes)


def new_dialect(
    kind: type[ConversationDialect], backend: Backend, conversations: Conversations
) -> ConversationDialect:
    terms = conversation_terms(backend, conversations)
    return kind(terms, uuid.uuid4().hex, backend.engines.names(), backend.understands)


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
    ) -> None:
        super().__init__(conversations, metrics, max_message_bytes, place, origin)
        self._dialect = dialect
        self._decoding = False

    def opened(self) -> None:
        self.send(self._dialect.hello())
        self.open_conversation(
            self._dialect.settings, self._dialect.listening, self._dialect.prefix
        )

    def received(self, message: str | bytes) -> None:
        try:
            if self._decoding:
                raise ClientError("conversation_busy", "the previous audio is still being decoded")
            for fact in self._dialect.parse(message):
                self._take(fact)
        except ClientError as error:
            self._refuse(error)

    def render(self, event: Any) -> list[bytes]:
        return self._dialect.render(event)

    def _take(self, fact: Any) -> None:
        match fact:
            case ImmediateAnswer(frame):
                self.send(frame)
            case Undecoded(file=file):
                self._decoding = True
                self._conversations.start(self._decode(file))
            case _:
                self.feed(fact)

    def _refuse(self, error: ClientError) -> None:
        self.count(error)
        self.send(self._dialect.error(error))

    async def _decode(self, file: bytes) -> None:
        try:
            for fact in self._dialect.on_audio(await decoded(file)):
                self._take(fact)
        except ClientError as error:
            self._refuse(error)
        finally:
            self._decoding = False
