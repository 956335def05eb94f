"""Drives conversations: carries out a `Turn`'s orders with a live session, a chat and a speaker.

Knows the turn and the lanes, not sockets or wire formats. The turn's events go to the
conversation's sink, a dialect's socket. A reply is two tasks: one receives its text, the other
speaks its clauses one after the other. `Conversations.run` owns the tasks; barge-in cancels them
and thereby the requests to the engines.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple

from deployments.interfaces import ChatRequest, Endpoint, SpeechRequest
from serve_app.admission.places import Place
from serve_app.config import ConversationConfig, Limits, SpeakerConfig
from serve_app.config.engines import ChatConfig, EngineConfig
from serve_app.conversation.events import (
    AudioDeltaReceived,
    Cancel,
    ChatDeltaReceived,
    ClauseSpoken,
    Event,
    Fact,
    Generate,
    ReplyEnded,
    Speak,
    SpeechFact,
    WorkFailed,
)
from serve_app.conversation.history import Item
from serve_app.conversation.reply import ReplySettings
from serve_app.conversation.spans import turn_spans
from serve_app.conversation.turn import Turn, TurnState
from serve_app.conversation.voices import VoiceCatalog
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.lanes.pool import LanePool, LaneTimings, ReplicaSet
from serve_app.lanes.requests import Call, Calls, Measure, PayerOf
from serve_app.limits.account import Open
from serve_app.live.backlog import ReaderTooSlow
from serve_app.live.driver import NO_ORIGIN, Abandon, LiveSession, LiveSessions, watch_lanes
from serve_app.live.events import SERVICE_RESTART, Close, ErrorReport, Listening, ServerNotice
from serve_app.live.events import Event as SessionEvent
from serve_app.live.events import Fact as SessionFact
from serve_app.observability import tracing
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin
from serve_app.observability.table import CONVERSATIONS, SESSIONS_REFUSED
from serve_app.observability.trace import Trace
from serve_app.usage.meter import Counted, Meter

log = logging.getLogger("voxray.conversation")

AUDIO_AHEAD_S = 600.0
"""Must hold the audio of one message; reading the socket pauses long before this."""

CONVERSATION = (Open.SESSIONS, Open.CONVERSATIONS)
"""What it counts as."""

Work = Generate | Speak | Cancel
ConversationEvent = Event | ServerNotice | ErrorReport | Close
Sink = Callable[[ConversationEvent], None]


class _Underway(NamedTuple):
    """The running work for one reply."""

    tasks: list[asyncio.Task[None]]
    calls: list[Call]
    clauses: asyncio.Queue[Speak]


class Conversation:
    """One conversation; `feed` gives its turn a fact and carries out the orders."""

    def __init__(self, all_: "Conversations", turn: Turn, sink: Sink, origin: Origin) -> None:
        self._all = all_
        self._origin = origin
        self._turn = turn
        self._sink = sink
        self._work: dict[int, _Underway] = {}
        self._traces: dict[int, Trace | None] = {}
        """The spans of turns by their reply."""
        self._closing: Close | None = None
        """The server stops, and the session has ended; the running turn has not."""
        self.live: LiveSession | None = None
        self.writable = asyncio.Event()
        """Cleared while the client does not read: no more speech is generated meanwhile."""
        self.writable.set()

    @property
    def items(self) -> list[Item]:
        """The history."""
        return list(self._turn.history)

    def on_event(self, event: SessionEvent) -> None:
        """The live session's sink."""
        if isinstance(event, SpeechFact):
            self._feed_turn(event)
        elif isinstance(event, Close) and event.code == SERVICE_RESTART:
            self._closing = event
            self._close_between_turns()
        elif isinstance(event, ServerNotice | ErrorReport | Close):
            self._sink(event)

    def feed(self, fact: SessionFact | Fact) -> None:
        """A fact for the live session or for the turn.

        Raises `ClientError` for what a client may not ask now; nothing has changed then.
        """
        if not isinstance(fact, SessionFact):
            self._feed_turn(fact)
        elif self.live:
            self.live.feed(fact)

    def _feed_turn(self, fact: Fact) -> None:
        """Engines get their orders before the client gets its events, which take longer to send."""
        orders = self._turn.on(fact, time.monotonic())
        for order in orders:
            if isinstance(order, Work):
                self._do(order)
        for order in orders:
            if not isinstance(order, Work):
                self._send(order)
        for order in orders:
            if isinstance(order, Cancel):
                self._forget(order.reply)
        self._close_between_turns()

    def _close_between_turns(self) -> None:
        if self._closing and self._turn.state is TurnState.LISTENING:
            close, self._closing = self._closing, None
            self._sink(close)

    def leave(self) -> None:
        """Cancel all work. Safe to call twice."""
        for number in list(self._work):
            self._cancel(number)

    def _do(self, order: Work) -> None:
        match order:
            case Generate(reply, request):
                try:
                    self._begin(reply, request)
                except ClientError as error:
                    self._all.start(self._refuse(reply, error), self._fail, self._origin.ids())
            case Speak():
                self._work_for(order.reply).clauses.put_nowait(order)
            case Cancel(reply):
                self._cancel(reply)

    def _begin(self, reply: int, request: ChatRequest) -> None:
        """Raises `ClientError` where there are no tokens left, or the request is quarantined."""
        caller = self._origin.caller
        self._all.limiter.check_quota(caller, Counted.TOKENS)
        thinking = tracing.begin(self._trace(reply))
        trace = tracing.traceparent(thinking)
        asked = (request.messages, request.options)
        call = self._all.chat.start(*asked, caller=caller, trace=trace)
        self._start(reply, self._generate(reply, call, thinking))
        self._work[reply].calls.append(call)

    async def _refuse(self, reply: int, error: ClientError) -> None:
        """After the events that come with the order."""
        self._feed_turn(WorkFailed(reply, error))

    def _send(self, event: Event) -> None:
        if isinstance(event, ReplyEnded):
            self._cancel(event.reply)
            self._all.metrics.count_reply(event)
            self._record(event)
        self._sink(event)

    def _trace(self, reply: int) -> Trace | None:
        """The span of the reply's turn, from now on."""
        if reply not in self._traces:
            self._traces[reply] = tracing.begin(self._origin.trace)
        return self._traces[reply]

    def _record(self, ended: ReplyEnded) -> None:
        turn = self._traces.pop(ended.reply, None)
        origin = self._origin._replace(trace=turn or self._origin.trace)
        log.info("reply_ended", extra=_outcome(ended) | origin.ids())
        if turn:
            parent, session = self._origin.trace, self._origin.session
            for span in turn_spans(turn, parent, ended, session, time.monotonic()):
                tracing.record(span)

    def _forget(self, reply: int) -> None:
        """The reply was dropped before the client knew of it."""
        if turn := self._traces.pop(reply, None):
            fields: dict[str, tracing.Value] = {"voxray.status": "dropped"}
            at = time.monotonic()
            tracing.record(tracing.Span("turn", turn, self._origin.trace, at, at, fields))

    def _work_for(self, reply: int) -> _Underway:
        if reply not in self._work:
            self._work[reply] = _Underway([], [], asyncio.Queue())
            self._start(reply, self._speak(reply))
        return self._work[reply]

    def _start(self, reply: int, work: Coroutine[Any, Any, None]) -> None:
        ids = {"turn": reply, **self._origin.ids()}
        task = self._all.start(self._answered(reply, work), self._fail, ids)
        self._work_for(reply).tasks.append(task)

    def _cancel(self, reply: int) -> None:
        if work := self._work.pop(reply, None):
            for call in work.calls:  # a task that is cancelled before it began leaves no stream
                call.leave()
            for task in work.tasks:
                if task is not asyncio.current_task():
                    task.cancel()

    async def _answered(self, reply: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ClientError as error:
            self._feed_turn(WorkFailed(reply, error))

    def _fail(self, code: str) -> None:
        self.leave()
        if self.live:
            self.live.fail(code)

    async def _generate(self, reply: int, call: Call, thinking: Trace | None) -> None:
        with self._recorded("think", reply, thinking):
            async with aclosing(call.answers()) as pieces:  # type: ignore[type-var]
                async for written in pieces:
                    self._feed_turn(ChatDeltaReceived(reply, written))

    async def _speak(self, reply: int) -> None:
        """Speak clause after clause until the reply ends."""
        while work := self._work.get(reply):
            order = await work.clauses.get()
            speaking = tracing.begin(self._trace(reply))
            with self._recorded("speak", reply, speaking, order.clause):
                await self._speak_clause(order, tracing.traceparent(speaking))
            self._feed_turn(ClauseSpoken(reply, order.clause))

    async def _speak_clause(self, order: Speak, trace: str) -> None:
        asked = (order.text, order.voice, order.speed, order.clause)
        caller = self._origin.caller
        with self._all.limiter.quota(caller, Counted.CHARACTERS, len(order.text)):
            answers = self._all.speaker.stream(*asked, caller=caller, trace=trace)
            async with aclosing(answers) as sounds:  # type: ignore[type-var]
                async for sound in sounds:
                    await self.writable.wait()
                    if sound.pcm:
                        spoken = (order.clause, sound.pcm, sound.engine_ms)
                        self._feed_turn(AudioDeltaReceived(order.reply, *spoken))

    @contextmanager
    def _recorded(
        self, name: str, reply: int, trace: Trace | None, clause: int = 0
    ) -> Iterator[None]:
        """A span of the work for a reply, below that of its turn."""
        with tracing.current_trace(self._traces.get(reply)):
            with tracing.span(name, trace, **{"voxray.clause": clause}):
                yield


class Conversations:
    """Every conversation of this ingress, and its lanes to the models that reply and speak."""

    def __init__(
        self,
        config: ConversationConfig,
        sessions: LiveSessions,
        chat: Calls,
        speaker: Calls,
        voices: VoiceCatalog,
        metrics: Metrics,
    ) -> None:
        self.config = config
        self.sessions = sessions
        self.limiter = sessions.limiter
        self.voices = voices
        self.metrics = metrics
        self.chat = chat
        self.speaker = speaker
        watch_lanes(metrics, "Chat", self.chat.lanes)
        watch_lanes(metrics, "Speaker", self.speaker.lanes)
        self._tasks: asyncio.TaskGroup | None = None
        self._open: set[Conversation] = set()

    @property
    def ready(self) -> bool:
        return self.chat.lanes.count > 0 and self.speaker.lanes.count > 0 and self.voices.ready

    async def run(self) -> None:
        """Run the lanes and all work until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self.chat.lanes.run())
            self._tasks.create_task(self.speaker.lanes.run())
            self._tasks.create_task(self.voices.run())

    def start(
        self, work: Coroutine[Any, Any, None], fail: Abandon, ids: Mapping[str, object]
    ) -> asyncio.Task[None]:
        """Work for one conversation: if it raises, `fail` ends that one. `ids` are for the log."""
        assert self._tasks, "conversations are opened while `run` runs"
        return self._tasks.create_task(_guarded(work, fail, ids))

    def admit(self, caller: Principal) -> Place:
        """Reserve a place for `open`. Raises `ClientError` when none is free, here or within the
        limits of the caller."""
        self._check()
        return self.sessions.admit(caller, CONVERSATION)

    def _check(self) -> None:
        limits = self.sessions.limits
        if len(self._open) >= limits.max_conversations:
            self.metrics.count(SESSIONS_REFUSED)
            raise ClientError(
                "too_many_conversations",
                f"this ingress already has {limits.max_conversations} conversations; retry later",
                limits.retry_after_s,
            )

    def settings(self) -> ReplySettings:
        """The defaults of a conversation."""
        config = self.config
        return ReplySettings(
            instructions=config.instructions,
            voice=self.voices.default,
            preemptive_generation=config.preemptive_generation,
            resume_false_interruption=config.resume_false_interruption,
            max_history_tokens=config.max_history_tokens,
        )

    def listening(self) -> Listening:
        config = self.config
        endpoint = Endpoint(
            self.sessions.vad_config.aggressiveness,
            config.min_speech_ms,
            config.min_silence_ms,
            min(config.pause_ms, config.min_silence_ms - 20),
            max(20, config.min_interruption_ms),
        )
        return Listening(endpoint, config.prefix_padding_ms)

    def open(
        self,
        sink: Sink,
        abandon: Callable[[str], None],
        settings: ReplySettings,
        listening: Listening,
        prefix: str,
        place: Place | None = None,
        origin: Origin = NO_ORIGIN,
    ) -> Conversation:
        """A new conversation, at the `place` that `admit` reserved. The caller must always pass it
        to `close`.

        Raises `ClientError` when none is free.
        """
        self._check()
        turn = Turn(settings, self.sessions.limits.max_items, prefix)
        conversation = Conversation(self, turn, sink, origin)
        live = self.sessions.open(
            conversation.on_event,
            abandon,
            self._limits(),
            listening,
            place,
            origin,
            CONVERSATION,
        )
        conversation.live = live
        self._open.add(conversation)
        self.metrics.count(CONVERSATIONS)
        self.metrics.active_conversations = len(self._open)
        return conversation

    def close(self, conversation: Conversation) -> None:
        conversation.leave()
        if conversation.live:
            self.sessions.close(conversation.live)
            conversation.live = None
        self._open.discard(conversation)
        self.metrics.active_conversations = len(self._open)

    def _limits(self) -> Limits:
        config = self.config
        return self.sessions.limits.model_copy(
            update={
                "max_session_s": config.max_session_s,
                "max_silence_s": config.max_session_s,
                "idle_timeout_s": config.idle_timeout_s,
                "max_utterance_s": config.max_utterance_s,
                "max_buffered_audio_s": AUDIO_AHEAD_S,
            }
        )


async def _guarded(
    work: Coroutine[Any, Any, None], fail: Abandon, ids: Mapping[str, object]
) -> None:
    """Owned by `Conversations`: nothing but cancellation gets out."""
    try:
        await work
    except ReaderTooSlow:
        fail("client_too_slow")
    except Exception:
        log.exception("reply_failed", extra=ids)
        fail("internal_error")


def _outcome(ended: ReplyEnded) -> dict[str, object]:
    """The fields of a reply's log line."""
    stages = ended.stages._asdict()
    shown = ("transcribe_ms", "first_token_ms", "first_audio_ms", "total_ms", "overhead_ms")
    return {
        "turn": ended.reply,
        "status": ended.status,
        "code": ended.error.code if ended.error else "",
        "audio_ms": ended.audio_ms,
        **{name: stages[name] for name in shown},
    }


def chat_calls(replicas: ReplicaSet, config: ChatConfig, meter: Meter, payer_of: PayerOf) -> Calls:
    lanes = _lanes(replicas, config, ChatRequest)
    measure = Measure(Counted.TOKENS, lambda request, delta: sum(delta.tokens))
    return Calls(lanes, config.timeout_s, "reply_failed", meter, measure, payer_of)


def speech_calls(
    replicas: ReplicaSet, config: SpeakerConfig, meter: Meter, payer_of: PayerOf
) -> Calls:
    """A text is counted as soon as there is audio of it."""
    lanes = _lanes(replicas, config, SpeechRequest)
    measure = Measure(
        Counted.CHARACTERS, lambda request, sound: len(request[0]) if sound.pcm else 0
    )
    return Calls(lanes, config.timeout_s, "speech_failed", meter, measure, payer_of)


def _lanes(replicas: ReplicaSet, config: EngineConfig, request: type) -> LanePool:
    timings = LaneTimings(config.batch_interval_ms / 1000)
    return LanePool(replicas, timings, request)
