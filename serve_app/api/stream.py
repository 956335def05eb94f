"""`WS /v1/transcribe/stream`: a socket in front of a live session.

A frame that comes in is parsed and fed to the session at once, an event is rendered and written at
once. While the client does not read, events wait in the `Backlog`.
"""

import time
import uuid
from typing import Any

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from serve_app.api.socket import Socket, refusal, welcome
from serve_app.backlog import Backlog
from serve_app.dialects.native import NativeDialect
from serve_app.errors import ClientError
from serve_app.live import LiveSession, LiveSessions
from serve_app.metrics import Metrics
from serve_app.session import (
    ClientErred,
    Close,
    Event,
    Fact,
    Started,
    TellError,
    TellFailed,
    TellInner,
)
from serve_app.upgrade import Route

PATH = "/v1/transcribe/stream"
MAX_MESSAGE_BYTES = 2 << 20


def route(models: Any, sessions: LiveSessions, metrics: Metrics) -> Route:
    """Answers handshakes: a session each, or 503 with Retry-After."""

    def accept(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        metrics.count_request()
        try:
            sessions.admit()
        except ClientError as error:
            return refusal(error, metrics)
        dialect = NativeDialect(sessions.limits, uuid.uuid4().hex, models.engine, models.languages)
        return welcome(Stream(sessions, dialect, metrics))

    return Route(accept, MAX_MESSAGE_BYTES)


class Stream(Socket):
    """One connection."""

    __slots__ = ("_backlog", "_dialect", "_live", "_sessions")

    def __init__(self, sessions: LiveSessions, dialect: NativeDialect, metrics: Metrics) -> None:
        super().__init__(metrics, MAX_MESSAGE_BYTES)
        self._sessions = sessions
        self._dialect = dialect
        self._live: LiveSession | None = None
        self._backlog = Backlog(sessions.limits.max_unsent_events)

    def opened(self) -> None:
        self.send(self._dialect.hello())
        self._live = self._sessions.open(self._on_event, self.end)

    def closed(self) -> None:
        if self._live:
            self._metrics.dropped_partials += self._backlog.dropped
            self._sessions.close(self._live)
            self._live = None

    def unread(self, is_unread: bool) -> None:
        if self._live:
            self._live.unread_since = time.monotonic() if is_unread else None
        while self._backlog and not self._paused:
            self._write(self._backlog.take())

    def received(self, message: str | bytes) -> None:
        live = self._live
        if live is None:
            return
        try:
            facts: list[Fact] = self._dialect.parse(message)
        except ClientError as error:
            facts = [ClientErred(error)]
        for fact in facts:
            live.feed(fact)
            if isinstance(fact, Started):
                self.send(self._dialect.hello())

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TellInner):
            return
        if isinstance(event, TellError | TellFailed):
            self._metrics.count_error(event.error.code)
        if self._paused:
            self._backlog.put(event)
        else:
            self._write(event)

    def _write(self, event: Any) -> None:
        self.send(self._dialect.render(event, round(time.time(), 3)))
        if isinstance(event, Close):
            self.finish(event.code)
