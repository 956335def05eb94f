"""A conversation's replies: the current one on its way out, and recent ones. Pure.

While it is not sure that a reply is wanted, its events are withheld; `release` sends them, `cancel`
drops them. Speech and text are ordered all the same.
"""

from dataclasses import replace

from deployments.interfaces import VOICE_RATE, ChatDelta, ToolCall
from deployments.speaker.clauses import speakable
from serve_app.conversation.events import (
    AudioDeltaReceived,
    Cancel,
    ChatDeltaReceived,
    ClauseSpoken,
    Order,
    ReplyAudioDelta,
    ReplyCallDelta,
    ReplyEnded,
    ReplyEvent,
    ReplyItemAdded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyTextDelta,
    Speak,
    WorkFact,
    WorkFailed,
)
from serve_app.conversation.history import History, Item
from serve_app.conversation.reply import Clause, Reply, Stages
from serve_app.errors import ClientError

MAX_TRUNCATABLE = 8
"""Spoken replies that can still be truncated."""

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a reply is incomplete, by the finish reason of the chat engine."""


class TurnOutbox:
    """What a turn orders because of one fact, the time of that fact, and ids for new items."""

    __slots__ = ("_ids", "_prefix", "now", "orders")

    def __init__(self, prefix: str) -> None:
        self.orders: list[Order] = []
        self.now = 0.0
        self._prefix = prefix
        self._ids = 0

    def begin(self, now: float) -> None:
        self.orders, self.now = [], now

    def put(self, order: Order) -> None:
        self.orders.append(order)

    def new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self._prefix}{self._ids:04d}"


class Replies:
    __slots__ = ("_history", "_outbox", "_spoken", "_withheld", "current", "number", "withholding")

    def __init__(self, history: History, outbox: TurnOutbox) -> None:
        self._history = history
        self._outbox = outbox
        self.number = 0
        """Of the newest reply."""
        self.current: Reply | None = None
        self.withholding = False
        self._withheld: list[ReplyEvent] = []
        self._spoken: dict[str, Reply] = {}
        """By the id of their message, oldest first."""

    @property
    def last_spoken(self) -> Reply | None:
        return next(reversed(self._spoken.values()), None)

    @property
    def is_playing(self) -> bool:
        """A client that plays audio at once is still playing the last reply."""
        last = self.last_spoken
        return last is not None and self._outbox.now < last.played_until()

    def of_item(self, id_: str) -> Reply | None:
        """The reply that has the item, if the client knows of it and it can be truncated."""
        reply = self._spoken.get(id_) or self.current
        return reply if reply and id_ in reply.sent_items else None

    def begin(self, reply: Reply, withhold: bool) -> None:
        self.number = reply.number
        self.current, self.withholding = reply, withhold
        reply.timing.asked = self._outbox.now
        self._send(ReplyStarted(reply.number, reply.settings, reply.metadata))

    def on_work(self, fact: WorkFact) -> None:
        """Does nothing if the work was for a reply that is no longer wanted."""
        reply = self.current
        if reply is None or fact.reply != reply.number:
            return
        match fact:
            case ChatDeltaReceived(_, delta):
                self.write(reply, delta)
            case AudioDeltaReceived():
                self._on_audio(reply, fact)
            case ClauseSpoken(_, clause):
                reply.clauses[clause].spoken = True
                self._end_if_complete(reply)
            case WorkFailed(_, error):
                self._outbox.put(Cancel(reply.number))
                self._end(reply, "failed", error.code, error)

    def release(self) -> None:
        withheld, self._withheld, self.withholding = self._withheld, [], False
        for event in withheld:
            self._deliver(event)

    def cancel(self, reply: Reply, reason: str) -> bool:
        """Stop the current reply and drop what is withheld; whether the client knew of it."""
        self._outbox.put(Cancel(reply.number))
        self._withheld, self.withholding = [], False
        if reply.started:
            self._end(reply, "cancelled", reason)
        self.current = None
        return reply.started

    # Text and calls from the chat engine, audio from the speaker.

    def write(self, reply: Reply, delta: ChatDelta) -> None:
        reply.tokens = max(reply.tokens, delta.tokens)
        if delta.text:
            reply.note_text(delta, self._outbox.now)
            self._write_text(reply, delta.text)
        for call in delta.calls:
            self._write_call(reply, call)
        if delta.finish:
            reply.finish = delta.finish
            self._speak(reply, reply.splitter.flush() if reply.settings.audio else [])
            self._end_if_complete(reply)

    def _write_text(self, reply: Reply, text: str) -> None:
        message = reply.message
        if message is None:
            spoken, id_ = reply.settings.audio, self._outbox.new_id("item")
            message = Item(id_, "message", spoken=spoken, status="in_progress")
            self._add_item(reply, message)
        self._send(ReplyTextDelta(reply.number, message.id, text))
        if reply.settings.audio:
            self._speak(reply, reply.splitter.push(text))

    def _speak(self, reply: Reply, clauses: list[str]) -> None:
        for text in clauses:
            if reply.timing.clause is None:
                reply.timing.clause = self._outbox.now
            spoken = speakable(text)
            reply.clauses.append(Clause(text, spoken=not spoken))
            if spoken:
                number, settings = len(reply.clauses) - 1, reply.settings
                order = Speak(reply.number, number, spoken, settings.voice, settings.speed)
                self._outbox.put(order)

    def _write_call(self, reply: Reply, call: ToolCall) -> None:
        calls = [item for item in reply.items if item.kind == "call"]
        if call.number < len(calls):
            item = calls[call.number]
        else:
            id_ = self._outbox.new_id("item")
            call_id = call.id or self._outbox.new_id("call")
            item = Item(id_, "call", status="in_progress", call_id=call_id, name=call.name)
            self._add_item(reply, item)
        item = replace(item, arguments=item.arguments + call.arguments)
        index = reply.update_item(item)
        self._send(ReplyCallDelta(reply.number, index, item.id, item.call_id, call.arguments))

    def _add_item(self, reply: Reply, item: Item) -> None:
        reply.items.append(item)
        self._send(ReplyItemAdded(reply.number, len(reply.items) - 1, item, reply.remembered))

    def _on_audio(self, reply: Reply, audio: AudioDeltaReceived) -> None:
        reply.note_audio(audio.engine_ms, self._outbox.now)
        reply.clauses[audio.clause].samples += len(audio.pcm) // 2
        assert reply.message, "only the text of a message is spoken"
        self._send(ReplyAudioDelta(reply.number, reply.message.id, audio.pcm))

    # The end of a reply.

    def _end_if_complete(self, reply: Reply) -> None:
        if not reply.complete:
            return
        reason = INCOMPLETE.get(reply.finish or "")
        self._end(reply, "incomplete" if reason else "completed", reason)

    def _end(
        self, reply: Reply, status: str, reason: str | None, error: ClientError | None = None
    ) -> None:
        """While its events are withheld the reply stays the current one."""
        known, done = [], status == "completed"
        for index, item in enumerate(reply.items):
            text = reply.text if item.kind == "message" else item.text
            ended = replace(item, text=text, status="completed" if done else "incomplete")
            reply.items[index] = ended
            if item.id in reply.sent_items or status != "cancelled":
                known.append(ended)
                self._send(ReplyItemEnded(reply.number, index, ended, reply.remembered))
        self._send(
            ReplyEnded(
                reply.number,
                status,
                reason,
                tuple(known),
                reply.tokens,
                reply.samples * 1000 // VOICE_RATE,
                Stages(),  # filled in when the event is sent
                reply.settings,
                reply.metadata,
                error,
            )
        )

    # Events to the client.

    def _send(self, event: ReplyEvent) -> None:
        if self.withholding:
            self._withheld.append(event)
        else:
            self._deliver(event)

    def _deliver(self, event: ReplyEvent) -> None:
        reply = self.current
        assert reply
        match event:
            case ReplyStarted():
                reply.started = True
            case ReplyItemAdded(item=item):
                reply.sent_items.append(item.id)
                after = self._history.append(item) if reply.remembered else None
                event = replace(event, after=after)
            case ReplyItemEnded(item=item):
                self._history.update(item)
            case ReplyAudioDelta() | ReplyTextDelta():
                self._note_sent(reply, isinstance(event, ReplyAudioDelta))
            case ReplyEnded():
                event = replace(event, stages=reply.timing.stages(), timing=reply.timing)
                self.current = None
        self._outbox.put(event)

    def _note_sent(self, reply: Reply, audio: bool) -> None:
        """The first audio of a spoken reply, or the first text of a written one."""
        if reply.timing.sent is not None or audio != reply.settings.audio:
            return
        reply.timing.sent = self._outbox.now
        if audio and reply.message:
            self._spoken[reply.message.id] = reply
            while len(self._spoken) > MAX_TRUNCATABLE:
                del self._spoken[next(iter(self._spoken))]
