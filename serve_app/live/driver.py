"""Drives live sessions: gives each its streams and its clock, and carries out its orders.

Knows sessions and lanes, not sockets or wire formats. A session's events go to its sink, which is a
socket or the collector of a recording.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

import anyio

from deployments.fairness import NOBODY, Payer
from deployments.interfaces import RATE, Hypothesis, Speech, VadInput, VadResult
from serve_app.admission.admission import Admission, LaneLoad
from serve_app.admission.ladder import Level
from serve_app.admission.places import Place
from serve_app.config import Limits
from serve_app.config.drain import CLOSE_TIMEOUT_S
from serve_app.config.engines import TranscriberConfig, VadConfig
from serve_app.errors import ClientError, key_revoked, server_restarting
from serve_app.identity.principal import Principal
from serve_app.lanes.lane import LaneStream
from serve_app.lanes.pool import LanePool, LaneTimings, ReplicaSet
from serve_app.limits.account import Open
from serve_app.limits.limiter import Limiter, unlimited
from serve_app.live.backlog import ReaderTooSlow
from serve_app.live.events import (
    ClientErred,
    ClientVanished,
    Close,
    DetectSpeech,
    DrainEnded,
    DrainStarted,
    Event,
    Fact,
    Listening,
    Order,
    QualityChanged,
    Quarantined,
    Recognize,
    SessionMetrics,
    Ticked,
    TranscriberAttached,
    Unserved,
    VadAttached,
)
from serve_app.live.resume_point import ResumePoint
from serve_app.live.session import Session
from serve_app.observability import tracing
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin
from serve_app.observability.table import LANES, LANES_LOST, SESSIONS, SESSIONS_REFUSED
from serve_app.usage.meter import Counted, Meter

log = logging.getLogger("voxray.live")

TICK_S = 1.0
LARGER_BATCHES = 2.0
"""How much the batch interval grows under overload."""

CHUNKED = "chunked"
"""The kind of sessions that come as a HTTP request, which is counted as such."""

SESSION = (Open.SESSIONS,)
"""What a session counts as; a conversation counts as more."""

NOTHING_COUNTED = SessionMetrics()
NO_ORIGIN = Origin()

Sink = Callable[[Event], None]
"""Gets a session's events as they happen; may raise `ReaderTooSlow`."""

Abandon = Callable[[str], None]
"""Gets the error code of a session that ends without a `Close` event."""


class _SessionStream:
    """Owner of one of a session's streams: what happens on it becomes the session's facts."""

    __slots__ = ("_attached", "_busy", "_live")

    def __init__(self, live: "LiveSession", attached: Fact, busy: Callable[[], bool]) -> None:
        self._live = live
        self._attached = attached
        self._busy = busy

    def attached(self) -> None:
        self._live.feed(self._attached)

    def unserved(self) -> None:
        self._live.feed(Unserved())

    def answered(self, answer: VadResult | Hypothesis) -> None:
        self._live.feed(answer)

    def busy(self) -> bool:
        return self._busy()

    def quarantined(self) -> None:
        self._live.feed(Quarantined())


class LiveSession:
    """One session with its streams; `feed` gives it a fact and carries out its orders."""

    __slots__ = (
        "_abandon",
        "_count_final",
        "_metered",
        "_payer",
        "_session",
        "_sink",
        "_speech",
        "_vad",
        "closed",
        "code",
        "counted",
        "opened",
        "origin",
        "place",
        "progressed",
        "unread_since",
    )

    def __init__(
        self,
        session: Session,
        sink: Sink,
        abandon: Abandon,
        count_final: Callable[[float], None] = lambda latency_s: None,
        origin: Origin = NO_ORIGIN,
        payer: Payer = NOBODY,
    ) -> None:
        self.origin = origin
        self._payer = payer
        self.opened = time.monotonic()
        self.code = ""
        """The error that ended it early."""
        self._session = session
        self._count_final = count_final
        self._sink = sink
        self._abandon = abandon
        self._vad: LaneStream | None = None
        self._speech: LaneStream | None = None
        self.place: Place | None = None
        self.closed: SessionMetrics | None = None
        self.counted = NOTHING_COUNTED
        """The metrics that the replica's metrics already include."""
        self._metered = 0
        """The sample up to which the meter has counted."""
        self.progressed: Callable[[], None] | None = None
        """Called after each fact, if set."""
        self.unread_since: float | None = None
        """When the client stopped reading, if it has."""

    @property
    def ahead(self) -> int:
        """Samples received that have not been dealt with."""
        return self._session.ahead

    @property
    def awaits_words(self) -> bool:
        return self._session.awaits_words

    @property
    def point(self) -> ResumePoint:
        """Where the session can be resumed."""
        return self._session.point

    def heard_s(self) -> float:
        """Seconds of audio received."""
        return self._session.received_s

    @property
    def heard(self) -> int:
        """Samples received, by the connections before this one, too; each once."""
        return self._session.heard

    def heard_before(self, samples: int) -> None:
        """The connections before this one have received so many, and have counted them."""
        self._session.heard_before(samples)
        self._metered = max(self._metered, samples)

    def take_unmetered(self) -> int:
        """Samples received that the meter has not counted. Audio that is sent again is none."""
        new = max(0, self.heard - self._metered)
        self._metered += new
        return new

    def join(self, vad: LanePool, transcriber: LanePool) -> None:
        # Attaching feeds the session, which may put audio on either stream: both must exist first.
        vad_owner = _SessionStream(self, VadAttached(), lambda: False)  # no audio ends a VAD
        self._vad = LaneStream(vad, vad_owner, self._payer)
        transcriber_owner = _SessionStream(self, TranscriberAttached(), lambda: self.awaits_words)
        self._speech = LaneStream(transcriber, transcriber_owner, self._payer)
        vad.attach(self._vad)
        transcriber.attach(self._speech)

    def leave(self) -> None:
        """Leave the lanes; the models drop what they hold for this session. Safe to call twice."""
        self._session.on(ClientVanished(), 0.0)
        for stream in (self._vad, self._speech):
            if stream:
                stream.leave()
        self._vad = self._speech = None

    def feed(self, fact: Fact) -> None:
        """Never raises: a session that fails must not fail the others on its lane."""
        try:
            orders = self._session.on(fact, time.monotonic())
            if orders:
                self._carry_out(orders)
            if self.progressed:
                self.progressed()
        except ReaderTooSlow:
            self.fail("client_too_slow")
        except Exception:
            fields = {"fact": type(fact).__name__, **self.origin.ids()}
            log.exception("session_failed", extra=fields)
            self.fail("internal_error")

    def _carry_out(self, orders: Sequence[Order]) -> None:
        """Only with orders can there be a final, and so a latency."""
        for latency_s in self._session.take_latencies():
            self._count_final(latency_s)
        for order in orders:
            self._do(order)

    def metrics(self) -> SessionMetrics:
        return self.closed or self._session.metrics()

    def refuse(self, error: ClientError) -> None:
        """End with this error, after the words of all audio so far."""
        self.feed(ClientErred(error))

    def fail(self, code: str) -> None:
        """End at once; the client does not get events that it has not read yet."""
        if self.closed is None:
            self.code = code
            self.closed = self._session.metrics()
            self._session.on(ClientVanished(), 0.0)
        self._abandon(code)

    def revoke(self) -> None:
        """The key is not valid any more. The client gets an error that says so."""
        error = key_revoked()
        self.feed(ClientErred(error))
        if self.closed is None:
            self.fail(error.code)

    def _do(self, order: Order) -> None:
        match order:
            case DetectSpeech(pcm, resume):
                if self._vad:
                    self._vad.put((pcm, resume))
            case Recognize(utterance, pcm, ended, options):
                if self._speech:
                    self._speech.put((utterance, pcm, ended, options), ended)
            case Close(_, metrics):
                self.closed = metrics
                self._sink(order)
            case _:
                self._sink(order)


class LiveSessions:
    """All live sessions of this ingress: admission, clock, lanes."""

    def __init__(
        self,
        limits: Limits,
        vad_config: VadConfig,
        transcriber_config: TranscriberConfig,
        vad: ReplicaSet,
        transcriber: ReplicaSet,
        metrics: Metrics,
        admission: Admission,
        meter: Meter,
        limiter: Limiter | None = None,
    ) -> None:
        self._meter = meter
        self.limits = limits
        self.limiter = limiter or unlimited(metrics)
        self.vad_config = vad_config
        self.admission = admission
        admission.sessions = lambda: self.count
        admission.follow(self._on_level)
        self._metrics = metrics
        self._open: set[LiveSession] = set()
        self._draining = False
        self._left = asyncio.Event()
        """A session has left, for `drain`."""
        self.vad = LanePool(vad, LaneTimings(vad_config.batch_interval_ms / 1000), VadInput)
        self.transcriber = LanePool(
            transcriber,
            LaneTimings(transcriber_config.batch_interval_ms / 1000),
            Speech,
        )
        watch_lanes(metrics, "Vad", self.vad)
        watch_lanes(metrics, "Transcriber", self.transcriber)

    def configure(self, limits: Limits, vad: VadConfig) -> None:
        """For new sessions; open ones keep their configuration."""
        self.limits = limits
        self.vad_config = vad

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def ready(self) -> bool:
        return self.vad.count > 0 and self.transcriber.count > 0

    def admit(
        self, caller: Principal, kinds: Sequence[Open] = SESSION, is_request: bool = True
    ) -> Place:
        """Reserve a place for `open`. Raises `ClientError` when none is free, here or within the
        limits of the caller."""
        self._check_drain()
        if not self.admission.has_room(caller.tenant, self.limits.max_sessions):
            self._metrics.count(SESSIONS_REFUSED)
            raise ClientError(
                "too_many_sessions",
                f"this ingress has room for {self.limits.max_sessions} sessions; retry later",
                self.limits.retry_after_s,
            )
        place = self.admission.reserve(caller.tenant)
        try:
            place.lease = self.limiter.session(caller, kinds, is_request)
        except ClientError:
            self.admission.leave(place)
            raise
        return place

    def _check_drain(self) -> None:
        if self._draining:
            self._metrics.count(SESSIONS_REFUSED)
            raise server_restarting()

    def open(
        self,
        sink: Sink,
        abandon: Abandon,
        limits: Limits | None = None,
        listening: Listening | None = None,
        place: Place | None = None,
        origin: Origin = NO_ORIGIN,
        kinds: Sequence[Open] = SESSION,
    ) -> LiveSession:
        """A new session, attached, at the `place` that `admit` reserved. The caller must always
        pass it to `close`.

        Raises `ClientError` when no session is free.
        """
        self._check_drain()  # it may have begun after the place was reserved
        vad = self.vad_config
        listening = listening or Listening(vad.endpoint(), vad.prefix_padding_ms)
        session = Session(limits or self.limits, listening, time.monotonic())
        payer = self.admission.weights.payer(origin.caller)
        live = LiveSession(session, sink, abandon, self._metrics.count_final, origin, payer)
        live.place = self._taken(place, live, kinds)
        self._open.add(live)
        self._metrics.count(SESSIONS)
        if origin.kind != CHUNKED:
            self._meter.add(origin.caller, Counted.REQUESTS, 1)
        log.info("session_opened", extra={"kind": origin.kind, **origin.ids()})
        self._metrics.active_sessions = self.count
        live.join(self.vad, self.transcriber)
        if level := self.admission.level:
            live.feed(QualityChanged(level, self.admission.reason))
        return live

    def _taken(self, place: Place | None, live: LiveSession, kinds: Sequence[Open]) -> Place:
        """The place, or another one where there is none or it has expired."""
        if place is None or not self.admission.take(place, live.heard_s):
            place = self.admit(live.origin.caller, kinds)
            self.admission.take(place, live.heard_s)
        if place.lease:
            place.lease.end = live.refuse
        return place

    def close(self, live: LiveSession) -> None:
        self._count([live])
        if live in self._open:
            log.info("session_closed", extra=_outcome(live))
            _record(live)
        live.leave()
        self._open.discard(live)
        self._left.set()
        if live.place:
            self.admission.leave(live.place)
        self._metrics.active_sessions = self.count

    def revoke(self, keys: Collection[str]) -> None:
        """End the sessions of these keys at once: what is not final is lost."""
        for live in list(self._open):
            if live.origin.caller.key in keys:
                live.revoke()

    async def drain(self, timeout_s: float) -> None:
        """Admit no session any more. Open ones get `timeout_s` to end, then they get the words of
        all audio so far and are closed; returns when none is open."""
        self._draining = True
        log.info("drain_began", extra={"sessions": self.count, "timeout_s": timeout_s})
        self._feed_all(DrainStarted(timeout_s))
        await self._emptied(timeout_s)
        log.info("drain_ended", extra={"sessions": self.count})
        self._feed_all(DrainEnded())
        await self._emptied(self.limits.closing_timeout_s + CLOSE_TIMEOUT_S)
        for live in list(self._open):
            live.fail("server_restarting")

    def _feed_all(self, fact: Fact) -> None:
        for live in list(self._open):
            live.feed(fact)

    async def _emptied(self, within_s: float) -> None:
        """Returns when no session is open, or after `within_s`."""
        with anyio.move_on_after(within_s):
            while self._open:
                self._left.clear()
                await self._left.wait()

    async def run(self) -> None:
        """Run lanes and clock until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.vad.run)
            tasks.start_soon(self.transcriber.run)
            tasks.start_soon(self._tick)
            tasks.start_soon(self.admission.run, self._lane_load)

    def _lane_load(self) -> LaneLoad:
        vad, transcriber = self.vad.signals(), self.transcriber.signals()
        return LaneLoad(
            max(vad.round_trip_s, transcriber.round_trip_s), max(vad.busy, transcriber.busy)
        )

    def _on_level(self, level: Level, reason: str) -> None:
        factor = LARGER_BATCHES if level >= Level.LARGER_BATCHES else 1.0
        self.vad.slow_down(factor)
        self.transcriber.slow_down(factor)
        self.transcriber.announce(level)
        for live in list(self._open):
            live.feed(QualityChanged(level, reason))

    def _count(self, sessions: Sequence[LiveSession]) -> None:
        """Add what they did since they were last counted."""
        now = [live.metrics() for live in sessions]
        self._metrics.count_sessions(
            list(zip([live.counted for live in sessions], now, strict=True))
        )
        for live, metrics in zip(sessions, now, strict=True):
            live.counted = metrics
            self._meter.add(live.origin.caller, Counted.AUDIO, live.take_unmetered() / RATE)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._count(list(self._open))
            latest = time.monotonic() - self.limits.client_write_timeout_s
            for live in list(self._open):
                live.feed(Ticked())
                if live.unread_since is not None and live.unread_since < latest:
                    live.fail("client_too_slow")
            self._end_expired(time.time())

    def _end_expired(self, now: float) -> None:
        """End the sessions of tokens that have expired, as those of revoked keys."""
        for live in list(self._open):
            if live.origin.caller.has_expired(now):
                live.revoke()


def _record(live: LiveSession) -> None:
    origin = live.origin
    fields: dict[str, tracing.Value] = {
        "voxray.session": origin.session,
        "voxray.tenant": origin.caller.tenant,
        "voxray.kind": origin.kind,
        "voxray.audio_s": live.metrics().audio_ms / 1000,
    }
    if trace := tracing.begin(origin.trace):
        now = time.monotonic()
        span = tracing.Span("session", trace, origin.trace, live.opened, now, fields, live.code)
        tracing.record(span)


def _outcome(live: LiveSession) -> dict[str, object]:
    """The fields of its last log line."""
    metrics = live.metrics()
    return {
        "kind": live.origin.kind,
        "code": live.code,
        "open_s": round(time.monotonic() - live.opened, 1),
        "audio_s": round(metrics.audio_ms / 1000, 1),
        "utterances": metrics.utterances,
        "words": metrics.words,
        "errors": metrics.errors,
        "replays": metrics.replays,
        **live.origin.ids(),
    }


def watch_lanes(metrics: Metrics, deployment: str, lanes: LanePool) -> None:
    metrics.watch(LANES, lambda: lanes.count, deployment)
    metrics.watch(LANES_LOST, lambda: lanes.losses, deployment)
