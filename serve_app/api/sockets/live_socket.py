"""`WS /v1/transcribe/stream`: a socket in front of a live session.

A frame is parsed and fed to the session at once; an event is rendered and written at once. While
the client does not read, events wait in the `Backlog`.
"""

import logging
import time
import uuid
from typing import Any

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener

from serve_app.admission.places import Place
from serve_app.api.backend import Backend
from serve_app.api.sockets.query import arrival, checked_query
from serve_app.api.sockets.socket import SUBPROTOCOL, Socket, agreed, refusal, welcome
from serve_app.api.sockets.upgrade import Route
from serve_app.config.resume import ResumeConfig
from serve_app.dialects.native import NativeDialect
from serve_app.errors import ClientError
from serve_app.identity.gate import Gate
from serve_app.identity.principal import Principal
from serve_app.identity.routes import SOCKETS
from serve_app.jobs.live_recording import LiveRecording, LiveRecordings
from serve_app.live.backlog import Backlog
from serve_app.live.driver import LiveSession, LiveSessions
from serve_app.live.events import (
    ClientErred,
    Close,
    ErrorReport,
    Event,
    Fact,
    Resumed,
    Started,
    UtteranceEvent,
    UtteranceFailed,
)
from serve_app.live.fence import REPLACED, Claim
from serve_app.live.takeovers import Takeovers
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin, origin_of
from serve_app.observability.table import PARTIALS_DROPPED, SESSIONS_RESUMED
from serve_app.security.resume_token import ResumeTokens

log = logging.getLogger("voxray.live")

PATH = "/v1/transcribe/stream"
MAX_MESSAGE_BYTES = 2 << 20


def _recording(
    request: WSUpgradeRequest, caller: Principal, live_recordings: LiveRecordings
) -> LiveRecording | None:
    """The live recording that the query names. Raises `ClientError` for an unknown parameter."""
    id_ = checked_query(request, {"transcription"}).get("transcription")
    return live_recordings.recording(caller, id_) if id_ else None


def route(
    backend: Backend,
    gate: Gate,
    sessions: LiveSessions,
    metrics: Metrics,
    live_recordings: LiveRecordings,
    takeovers: Takeovers,
    config: ResumeConfig,
) -> Route:
    """Each handshake opens a session, or gets 503 with Retry-After. One that is recorded cannot be
    resumed: what was recorded is stored when its connection ends."""

    def tokens(tenant: str) -> ResumeTokens:
        return ResumeTokens(backend.keys, tenant, config.token_lifetime_s, time.time)

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        try:
            caller = gate.caller(SOCKETS[PATH], arrival(request))
            recording = _recording(request, caller, live_recordings)
            place = sessions.admit(caller)
        except ClientError as error:
            return refusal(error, metrics)
        signed = None if recording else tokens(caller.tenant)
        id_ = uuid.uuid4().hex
        dialect = NativeDialect(sessions.limits, id_, backend.engines.transcriber, signed)
        origin = origin_of(caller, request.headers, "native", id_)
        socket = LiveSocket(sessions, dialect, metrics, takeovers, place, origin, recording)
        headers = sessions.limiter.headers(caller) | agreed(request, SUBPROTOCOL)
        return welcome(socket, headers)

    return Route(accept, MAX_MESSAGE_BYTES)


class LiveSocket(Socket):
    """One connection."""

    __slots__ = (
        "_backlog",
        "_claim",
        "_dialect",
        "_live",
        "_place",
        "_recording",
        "_sessions",
        "_takeovers",
    )

    def __init__(
        self,
        sessions: LiveSessions,
        dialect: NativeDialect,
        metrics: Metrics,
        takeovers: Takeovers,
        place: Place,
        origin: Origin,
        recording: LiveRecording | None = None,
    ) -> None:
        super().__init__(metrics, MAX_MESSAGE_BYTES, origin)
        self._sessions = sessions
        self._dialect = dialect
        self._takeovers = takeovers
        self._place = place
        self._recording = recording
        self._claim = self._new_claim()
        self._live: LiveSession | None = None
        self._backlog = Backlog(sessions.limits.max_unsent_events)

    def opened(self) -> None:
        self.send(self._dialect.hello())
        self._live = self._sessions.open(
            self._on_event, self.end, place=self._place, origin=self._origin
        )
        self._takeovers.begin(self._claim, self._replaced)
        if self._recording:
            self._recording.begin(self._refused)

    def closed(self) -> None:
        if self._live:
            self._metrics.count(PARTIALS_DROPPED, by=self._backlog.dropped)
            self._sessions.close(self._live)
            self._takeovers.leave(self._claim, self._live.heard)
            if self._recording:
                self._recording.ended(self._live.metrics().audio_ms)
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
                self._begun(live, fact)

    def _begun(self, live: LiveSession, fact: Started) -> None:
        if isinstance(fact, Resumed):
            live.counted = live.metrics()  # counted where it was, or lost with that
            live.heard_before(fact.point.heard)
            before, self._claim = self._claim, self._new_claim()
            hearing = (self._replaced, live.heard_before)
            if not self._takeovers.resume(before, self._claim, *hearing):
                return live.fail(REPLACED)
            self._metrics.count(SESSIONS_RESUMED)
            live.origin = live.origin._replace(session=self._dialect.session_id)
            log.info("session_resumed", extra={"epoch": self._claim.epoch, **live.origin.ids()})
        self.send(self._dialect.hello())

    def _replaced(self, code: str) -> None:
        """Whoever goes on with the session asks at once how much this connection has heard."""
        if self._live:
            self._takeovers.leave(self._claim, self._live.heard)
            self._live.fail(code)

    def _new_claim(self) -> Claim:
        session = self._dialect.session
        return Claim(session.origin, session.epoch, time.time())

    def _refused(self, error: ClientError) -> None:
        """The session cannot be recorded; the client gets an error, and the session continues."""
        self._recording = None
        if self._live:
            self._live.feed(ClientErred(error))

    def _on_event(self, event: Event) -> None:
        if self._recording:
            self._recording.on_event(event)
        if isinstance(event, UtteranceEvent):
            return
        if isinstance(event, ErrorReport | UtteranceFailed):
            self._metrics.count_error(event.error.code)
        if self._paused:
            self._backlog.put(event)
        else:
            self._write(event)

    def _write(self, event: Any) -> None:
        self.send(self._dialect.render(event, round(time.time(), 3)))
        if isinstance(event, Close):
            self.finish(event.code)
