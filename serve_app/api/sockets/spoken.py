"""The socket of a conversation, in any dialect.

While the client does not read, no more speech is made for it; while it sends audio much faster than
that can be heard, its socket is not read.
"""

import asyncio
import time
from collections import deque
from typing import Any

from deployments.interfaces import RATE
from serve_app.admission.places import Place
from serve_app.api.backend import Backend
from serve_app.api.sockets.socket import Socket
from serve_app.conversation.driver import Conversation, ConversationEvent, Conversations
from serve_app.conversation.events import TranscriptFailed
from serve_app.conversation.reply import ReplySettings
from serve_app.dialects.terms import DialectTerms
from serve_app.errors import ClientError
from serve_app.live.backlog import ReaderTooSlow
from serve_app.live.events import Close, ErrorReport, Listening
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin

READ_AHEAD_SAMPLES = 30 * RATE
"""Audio that was received and not yet heard, at which the socket is no longer read."""

MAX_UNSENT_BYTES = 8 << 20
"""Limit of unsent speech, which was produced before the client stopped reading."""

AHEAD = "ahead"

ENDS = {"session_too_long": 1001, "idle_timeout": 1000, "silence_timeout": 1000}
"""Close codes that let a client come back, where the session's own would tell it not to."""


def conversation_terms(backend: Backend, conversations: Conversations) -> DialectTerms:
    """The terms of every dialect of conversations."""
    limits = conversations.sessions.limits
    return DialectTerms(
        limits,
        conversations.settings(),
        conversations.listening(),
        backend.engines.transcriber.revises,
        conversations.voices.resolve,
        backend.engines,
    )


class SpokenSocket(Socket):
    """One connection."""

    def __init__(
        self,
        conversations: Conversations,
        metrics: Metrics,
        max_message_bytes: int,
        place: Place,
        origin: Origin,
    ) -> None:
        super().__init__(metrics, max_message_bytes, origin)
        self._conversations = conversations
        self._place = place
        self._conversation: Conversation | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._flushing = False
        self._fatal = ""

    def render(self, event: Any) -> list[bytes]:
        """The dialect's frames of an event."""
        raise NotImplementedError

    # For a dialect's socket.

    def open_conversation(self, settings: ReplySettings, listening: Listening, prefix: str) -> None:
        self._conversation = self._conversations.open(
            self._on_event, self.end, settings, listening, prefix, self._place, self._origin
        )
        if self._conversation.live:
            self._conversation.live.progressed = self._throttle

    def feed(self, fact: Any) -> None:
        """Raises `ClientError` for a fact that is not allowed now."""
        if self._conversation:
            self._conversation.feed(fact)

    def count(self, error: ClientError) -> None:
        self._metrics.count_error(error.code)

    # The connection.

    def closed(self) -> None:
        if self._conversation:
            self._conversations.close(self._conversation)
            self._conversation = None

    def unread(self, is_unread: bool) -> None:
        conversation = self._conversation
        if conversation and conversation.live:
            conversation.live.unread_since = time.monotonic() if is_unread else None
        self._flush()
        if conversation and not self._paused:
            conversation.writable.set()
        elif conversation:
            conversation.writable.clear()

    def send(self, frame: bytes) -> None:
        """Queue a frame; it is written after the current events, which engines wait for.

        Raises `ReaderTooSlow` when too much waits.
        """
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > MAX_UNSENT_BYTES:
            raise ReaderTooSlow
        self._waiting.append(frame)
        if not self._flushing and not self._paused:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._waiting and not self._paused:
            frame = self._waiting.popleft()
            self._waiting_bytes -= len(frame)
            super().send(frame)

    def finish(self, code: int, reason: str = "") -> None:
        self._flush()
        super().finish(code, reason)

    def end(self, code: str) -> None:
        self._flush()
        super().end(code)

    def _throttle(self) -> None:
        live = self._conversation and self._conversation.live
        if not live:
            return
        if live.ahead < READ_AHEAD_SAMPLES:
            self.release(AHEAD)
        elif AHEAD not in self._holds:
            self.hold(AHEAD)

    # Events out.

    def _on_event(self, event: ConversationEvent) -> None:
        if isinstance(event, ErrorReport | TranscriptFailed):
            self.count(event.error)
        if isinstance(event, ErrorReport) and event.error.close is not None:
            self._fatal = event.error.code
        for frame in self.render(event):
            self.send(frame)
        if isinstance(event, Close):
            self.finish(ENDS.get(self._fatal, event.code), self._fatal)
