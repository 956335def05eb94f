"""Drives live sessions: gives each its seats in the lanes, its clock, and does what it orders.

Knows sessions and lanes; does not know sockets or the wire. A session's events wait in its
`Outbox` for whoever reads them: a socket's writer, or a recording's collector.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

import anyio

from deployments.interfaces import Hypothesis, Judged, Speech, Unjudged
from serve_app.config import Config, Limits
from serve_app.errors import ClientError
from serve_app.lanes import Fleet, Lanes, Seat, Terms
from serve_app.metrics import Metrics
from serve_app.session import (
    ClientVanished,
    Close,
    Fact,
    Judge,
    Order,
    Recognize,
    Session,
    TellError,
    TellProgress,
    TellSpeech,
    TellTranscript,
    Ticked,
    TranscriberSeated,
    VadSeated,
)
from serve_app.session import Metrics as SessionMetrics

log = logging.getLogger("voxray.live")

LANE_PATIENCE_S = 5.0
TICK_S = 1.0

Event = TellSpeech | TellTranscript | TellProgress | TellError | Close


class ReaderTooSlow(Exception):
    """The outbox is full of things that must not be dropped."""


class Outbox:
    """Events that wait for a slow reader: of partials only the newest is kept, finals all.

    Raises `ReaderTooSlow` when more than `bound` events wait that cannot be dropped.
    """

    __slots__ = ("_bound", "_events", "_some", "dropped")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._events: deque[Event] = deque()
        self._some = asyncio.Event()
        self.dropped = 0

    def put(self, event: Event) -> None:
        events = self._events
        if events and _is_partial(events[-1]) and _is_partial(event):
            events[-1] = event
            self.dropped += 1
            return
        if len(events) >= self._bound and not isinstance(event, Close):
            raise ReaderTooSlow
        events.append(event)
        self._some.set()

    async def take(self) -> Event:
        while not self._events:
            self._some.clear()
            await self._some.wait()
        return self._events.popleft()


def _is_partial(event: Event) -> bool:
    return isinstance(event, TellTranscript) and not event.final


class _VadRider:
    __slots__ = ("_live",)

    def __init__(self, live: "LiveSession") -> None:
        self._live = live

    def seated(self) -> None:
        self._live.feed(VadSeated())

    def answered(self, answer: Judged) -> None:
        self._live.feed(answer)


class _TranscriberRider:
    __slots__ = ("_live",)

    def __init__(self, live: "LiveSession") -> None:
        self._live = live

    def seated(self) -> None:
        self._live.feed(TranscriberSeated())

    def answered(self, answer: Hypothesis) -> None:
        self._live.feed(answer)


class LiveSession:
    """One session with its seats; `feed` tells it what happened and does what it orders."""

    __slots__ = (
        "_session",
        "_speech",
        "_vad",
        "abandon",
        "closed",
        "failure",
        "moved",
        "outbox",
        "write_began",
    )

    def __init__(self, session: Session, bound: int) -> None:
        self._session = session
        self.outbox = Outbox(bound)
        self._vad: Seat | None = None
        self._speech: Seat | None = None
        self.closed: SessionMetrics | None = None
        self.failure: str | None = None
        """The error code of a session that ended without being able to tell its client."""
        self.abandon: Callable[[], None] = lambda: None
        """Called when whoever reads the outbox does not, or must not wait any longer."""
        self.write_began: float | None = None
        """When the client was given the event that it has not taken yet."""
        self.moved: asyncio.Event | None = None
        """Set, where somebody wants to know, whenever a model has answered."""

    @property
    def ahead(self) -> int:
        """Samples received that have not been dealt with."""
        return self._session.ahead

    def join(self, vad: Lanes, transcriber: Lanes) -> None:
        # A lane may seat a rider at once, and seating already feeds the session: names first.
        self._vad = Seat(vad, _VadRider(self))
        self._speech = Seat(transcriber, _TranscriberRider(self))
        vad.place(self._vad)
        transcriber.place(self._speech)

    def leave(self) -> None:
        """Give the seats back; the models drop what they hold. Safe to call twice."""
        self._session.on(ClientVanished(), 0.0)
        for seat in (self._vad, self._speech):
            if seat:
                seat.leave()
        self._vad = self._speech = None

    def feed(self, fact: Fact) -> None:
        """Never raises: a session that fails must not fail the others on its lane."""
        try:
            for order in self._session.on(fact, time.monotonic()):
                self._do(order)
            if self.moved:
                self.moved.set()
        except ReaderTooSlow:
            self.fail("client_too_slow")
        except Exception:
            log.exception("a session failed on %s", type(fact).__name__)
            self.fail("internal_error")

    def metrics(self) -> SessionMetrics:
        return self.closed or self._session.metrics()

    def fail(self, code: str) -> None:
        """End at once; what the client has not read by now is lost to it."""
        if self.closed is None:
            self.closed = self._session.metrics()
            self.failure = code
            self._session.on(ClientVanished(), 0.0)
            self.abandon()

    def _do(self, order: Order) -> None:
        match order:
            case Judge(pcm, resume):
                if self._vad:
                    self._vad.put((pcm, resume))
            case Recognize(utterance, pcm, ended, options):
                if self._speech:
                    self._speech.put((utterance, pcm, ended, options), ended)
            case Close(_, metrics):
                self.closed = metrics
                self.outbox.put(order)
            case _:
                self.outbox.put(order)


class LiveSessions:
    """Every live session of this ingress: admission, clock, seats."""

    def __init__(self, config: Config, vad: Fleet, transcriber: Fleet, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._open: set[LiveSession] = set()
        self.vad = Lanes(vad, Terms(config.vad.tick_ms / 1000, LANE_PATIENCE_S), Unjudged)
        self.transcriber = Lanes(
            transcriber, Terms(config.transcriber.tick_ms / 1000, LANE_PATIENCE_S), Speech
        )

    @property
    def limits(self) -> Limits:
        return self._config.limits

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def ready(self) -> bool:
        return self.vad.count > 0 and self.transcriber.count > 0

    def _admit(self) -> None:
        if self.count >= self.limits.max_sessions:
            self._metrics.refused_sessions += 1
            raise ClientError(
                "too_many_sessions",
                f"all {self.limits.max_sessions} sessions of this ingress are taken",
                self.limits.retry_after_s,
            )

    def open(self, limits: Limits | None = None) -> LiveSession:
        """A new session, seated. The caller gives it to `close` whatever happens.

        Raises `ClientError` when no session is free.
        """
        self._admit()
        vad, limits = self._config.vad, limits or self.limits
        session = Session(limits, vad.prefix_ms, vad.min_speech_ms, time.monotonic())
        live = LiveSession(session, limits.max_unsent_events)
        self._open.add(live)
        self._metrics.total_sessions += 1
        self._metrics.active_sessions = self.count
        live.join(self.vad, self.transcriber)
        return live

    def close(self, live: LiveSession) -> None:
        metrics = live.metrics()
        live.leave()
        self._open.discard(live)
        self._metrics.active_sessions = self.count
        self._metrics.count_session(metrics)
        self._metrics.dropped_partials += live.outbox.dropped

    async def run(self) -> None:
        """Keep lanes and clock going until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.vad.run)
            tasks.start_soon(self.transcriber.run)
            tasks.start_soon(self._tick)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            latest = time.monotonic() - self.limits.client_write_timeout_s
            for live in list(self._open):
                live.feed(Ticked())
                if live.write_began is not None and live.write_began < latest:
                    live.fail("client_too_slow")

