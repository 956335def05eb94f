"""A spoken turn as a state machine: listen, think, speak. Pure: no clock, no tasks, no wire.

What happened goes into `Turn.on` with the time; what to do comes out. Work for a reply carries the
reply's number: when a reply is cancelled the number is out of date, and whatever comes late with
it is dropped at one line of `on`.

A reply may begin before it is sure that the person has ended (speculation), and goes on while it is
not sure that a noise is an interruption: what it would tell is then held back, and told or thrown
away once that is known.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from deployments.interfaces import (
    RATE,
    VOICE_RATE,
    ChatDelta,
    ChatOptions,
    ChatRequest,
    Message,
    ToolCall,
)
from deployments.speaker.clauses import speakable
from serve_app.conversation.context_window import remember
from serve_app.conversation.events import (
    AudioDeltaReceived,
    Cancel,
    ChatDeltaReceived,
    ClauseSpoken,
    Configured,
    Fact,
    FromClient,
    Generate,
    Heard,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    OfReply,
    Order,
    ReplyAudioDelta,
    ReplyCallDelta,
    ReplyCancel,
    ReplyCreate,
    ReplyEnded,
    ReplyItemAdded,
    ReplyItemEnded,
    ReplyStarted,
    ReplyTextDelta,
    Speak,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
    TurnEnded,
    TurnStarted,
    Work,
    WorkFailed,
)
from serve_app.conversation.history import History, Item
from serve_app.conversation.reply import Clause, Reply, ReplySettings, Stages
from serve_app.errors import ClientError, ProtocolViolation
from serve_app.live.events import (
    EagerFinal,
    SpeechConfirmed,
    TranscriptUpdate,
    TurnResumed,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceFailed,
    UtteranceOpened,
)

REMEMBERED_REPLIES = 8
"""Spoken replies that can still be truncated."""


class TurnState(Enum):
    LISTENING = auto()
    HEARING = auto()
    THINKING = auto()
    SPEAKING = auto()


# What happened: to the person's speech (the live session's events), by the client, in the engines.


# What to do.


@dataclass(slots=True)
class _Speech:
    """What the person says, from its beginning to its final."""

    utterance: int
    start: int
    item: str = ""
    """"" while it may still be a cough."""
    ended: float = 0.0
    vad_ms: float = 0.0


class Turn:
    """`on(fact, now)` with `now` in seconds of any clock that never goes back.

    Raises `ClientError` for what a client may not ask now, and changes nothing then.
    """

    def __init__(self, settings: ReplySettings, max_items: int, prefix: str) -> None:
        self.settings = settings
        self.history = History(max_items)
        self.number = 0
        """Of the newest reply."""
        self._prefix = prefix
        self._ids = 0
        self._speech: _Speech | None = None
        self._pending: dict[int, _Speech] = {}
        """Speech that has ended, and whose final has not come."""
        self._reply: Reply | None = None
        self._held: list[OfReply] = []
        self._holding = False
        self._spoken: dict[str, Reply] = {}
        self._waiting = False
        """The reply at hand waits for finals before it is written."""
        self._rest = ""
        """What was written and not heard of a reply that was interrupted."""
        self._orders: list[Order] = []
        self._now = 0.0

    @property
    def state(self) -> TurnState:
        if self._speech and self._speech.item:
            return TurnState.HEARING
        if self._reply and self._reply.sounding and not self._reply.basis:
            return TurnState.SPEAKING
        return TurnState.THINKING if self._reply or self._pending else TurnState.LISTENING

    @property
    def replying(self) -> bool:
        return self._reply is not None and self._reply.basis is None

    def on(self, fact: Fact, now: float) -> list[Order]:
        if isinstance(fact, Work) and (self._reply is None or fact.reply != self._reply.number):
            return []  # for a reply that is no longer wanted
        self._orders, self._now = [], now
        if isinstance(fact, Heard):
            self._on_heard(fact)
        elif isinstance(fact, FromClient):
            self._on_client(fact)
        else:
            self._on_work(fact)
        return self._orders

    # The person.

    def _on_heard(self, fact: Heard) -> None:
        match fact:
            case UtteranceOpened(utterance, start) if self._speech is None:
                self._open(_Speech(utterance, start))
            case SpeechConfirmed():
                self._on_steady()
            case EagerFinal(utterance, words) if self._is_heard(utterance):
                self._speculate(" ".join(word.text for word in words))
            case TurnResumed(utterance) if self._is_heard(utterance):
                self._drop_speculation()
            case UtteranceEnded(utterance, until, voice_until) if self._is_heard(utterance):
                self._end(until, voice_until)
            case UtteranceDropped(utterance) if self._is_heard(utterance):
                self._drop_speculation()
                self._speech = None
                self._release()
            case TranscriptUpdate():
                self._on_transcript(fact)
            case UtteranceFailed(utterance, error):
                self._on_failed(utterance, error)
            case _:
                raise ProtocolViolation(f"{type(fact).__name__} in {self.state.name}")

    def _is_heard(self, utterance: int) -> bool:
        return self._speech is not None and self._speech.utterance == utterance

    def _open(self, speech: _Speech) -> None:
        """While a reply is on its way it is not known yet whether this is a cough."""
        self._speech = speech
        if not self.settings.hands_free:
            speech.item = self._new_id("item")
        elif self.settings.interruptible and (self._reply or self._is_playing()):
            self._holding = True
        else:
            self._announce(speech)

    def _is_playing(self) -> bool:
        """A client that plays at once still plays the last reply."""
        last = next(reversed(self._spoken.values()), None)
        return last is not None and self._now < last.played_until()

    def _announce(self, speech: _Speech) -> None:
        speech.item = self._new_id("item")
        self._orders.append(TurnStarted(speech.item, speech.start))

    def _on_steady(self) -> None:
        speech = self._speech
        if speech is None or speech.item or not self.settings.hands_free:
            return
        self._interrupt()
        self._announce(speech)

    def _interrupt(self) -> None:
        """The person speaks: the reply ends where it was heard to."""
        if self._reply:
            return self._cancel("turn_detected")
        self._holding = False
        last = next(reversed(self._spoken.values()), None)
        if last:
            self._cut_short(last)

    def _cut_short(self, reply: Reply) -> None:
        if not reply.settings.audio:
            return
        heard = reply.heard_at(self._now)
        self._rest = reply.text[len(heard) :] if self.settings.resume_false_interruption else ""
        for item in self.history:
            if item.id in reply.told and item.kind == "message" and item.heard is None:
                self.history.truncate(item.id, heard)

    def _speculate(self, text: str) -> None:
        settings = self.settings
        speech = self._speech
        if not (
            speech and speech.item and text and settings.preemptive_generation and settings.reply
        ):
            return
        if settings.hands_free and not self._reply and not self._pending:
            said = Message("user", text)
            self._start(Reply(self.number + 1, settings, basis=text), [said])

    def _drop_speculation(self) -> None:
        if self._reply and self._reply.basis is not None:
            self._cancel("turn_detected")

    def _end(self, until: int, voice_until: int) -> None:
        speech, self._speech = self._speech, None
        assert speech
        if self.settings.hands_free and not speech.item:
            return self._release()  # a cough: the reply goes on
        speech.ended = self._now
        speech.vad_ms = (until - voice_until) * 1000 / RATE
        self._pending[speech.utterance] = speech
        if self.settings.hands_free:
            self._orders.append(TurnEnded(speech.item, until))
        speech.item = speech.item or self._new_id("item")
        item = Item(speech.item, "message", "user", spoken=True)
        self._orders.append(ItemAdded(item, self.history.append(item), committed=True))

    def _on_transcript(self, told: TranscriptUpdate) -> None:
        text = " ".join(word.text for word in told.words)
        if told.final:
            return self._on_final(told.utterance, text, told.until - told.start)
        speech = (
            self._speech if self._is_heard(told.utterance) else self._pending.get(told.utterance)
        )
        if speech and speech.item:
            self._orders.append(TranscriptPartial(speech.item, text))

    def _on_final(self, utterance: int, text: str, samples: int) -> None:
        speech = self._pending.pop(utterance, None)
        if speech is None:
            return  # a cough
        if speech.item in self.history:
            self.history.update(replace(self.history.get(speech.item), text=text))
        self._orders.append(TranscriptFinal(speech.item, text, samples * 1000 // RATE))
        self._answer(speech, text)

    def _on_failed(self, utterance: int, error: ClientError) -> None:
        speech = self._pending.pop(utterance, None)
        if speech:
            self._drop_speculation()
            self._orders.append(TranscriptFailed(speech.item, error))
            self._go_on()

    def _go_on(self) -> bool:
        """With a reply that waits for what is recognised now."""
        if not self._reply or not self._waiting:
            return False
        if not self._pending:
            self._waiting = False
            self._generate(self._reply, self.history.messages())
        return True

    def _answer(self, speech: _Speech, text: str) -> None:
        reply = self._reply
        if reply and self._waiting:
            self._time(reply, speech)
        if self._go_on():
            return
        if reply and reply.basis is not None and reply.basis == text:
            reply.basis = None
            self._time(reply, speech)
            return self._release()
        self._drop_speculation()
        if not text.strip():
            return self._resume()
        self._rest = ""
        newer = self._pending or (self._speech and self._speech.item)
        if self.settings.reply and not newer and not self._reply:
            reply = Reply(self.number + 1, self.settings)
            self._time(reply, speech)
            self._start(reply)

    def _time(self, reply: Reply, speech: _Speech) -> None:
        timing = reply.timing
        timing.ended, timing.transcribed = speech.ended, self._now
        timing.vad_ms = speech.vad_ms

    def _resume(self) -> None:
        """What interrupted held no words: say the rest."""
        rest, self._rest = self._rest.strip(), ""
        if not rest or self._reply:
            return
        reply = Reply(self.number + 1, self.settings)
        self._begin(reply)
        self._write(reply, ChatDelta(0, rest))
        self._write(reply, ChatDelta(0, finish="stop"))

    # The client.

    def _on_client(self, fact: FromClient) -> None:
        match fact:
            case Configured(settings):
                self._configure(settings)
            case ItemCreate(item, after):
                item = item if item.id else replace(item, id=self._new_id("item"))
                self._orders.append(ItemAdded(item, self.history.insert(item, after)))
            case ItemDelete(id_):
                self.history.delete(id_)
                self._orders.append(ItemDeleted(id_))
            case ItemRetrieve(id_):
                self._orders.append(ItemRetrieved(self.history.get(id_)))
            case ItemTruncate():
                self._truncate(fact)
            case ReplyCreate():
                self._on_requested(fact)
            case ReplyCancel(number):
                self._on_cancelled(number)

    def _configure(self, settings: ReplySettings) -> None:
        if self.settings.hands_free and not settings.hands_free:
            self._drop_speculation()
            self._release()
        self.settings = settings

    def _truncate(self, fact: ItemTruncate) -> None:
        reply = self._spoken.get(fact.id) or self._reply
        known = reply is not None and fact.id in reply.told
        heard = reply.heard(fact.audio_end_ms * VOICE_RATE // 1000) if reply and known else ""
        self.history.truncate(fact.id, heard)
        self._orders.append(ItemTruncated(fact.id, fact.audio_end_ms))

    def _on_requested(self, fact: ReplyCreate) -> None:
        if self.replying:
            raise ClientError(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress: wait for response.done",
            )
        self._drop_speculation()
        settings = fact.settings or self.settings
        reply = Reply(self.number + 1, settings, fact.metadata, fact.remembered)
        self._start(reply, messages=fact.messages)

    def _on_cancelled(self, number: int | None) -> None:
        if not self.replying or number not in (None, self.number):
            raise ClientError(
                "response_cancel_not_active", "Cancellation failed: no active response found"
            )
        self._cancel("client_cancelled")

    # The reply.

    def _start(
        self,
        reply: Reply,
        more: list[Message] | None = None,
        messages: tuple[Message, ...] | None = None,
    ) -> None:
        """To the history and what was `more` said, or to these `messages` in their place.

        What is still being recognised belongs to the history: a reply waits for it.
        """
        self._begin(reply)
        self._waiting = bool(self._pending) and messages is None
        if not self._waiting:
            history = self.history.messages() + (more or [])
            self._generate(reply, history if messages is None else list(messages))

    def _generate(self, reply: Reply, said: list[Message]) -> None:
        settings = reply.settings
        seen = remember(settings.instructions, said, settings.max_history_tokens) if said else ()
        options = ChatOptions(
            settings.tools, settings.tool_choice, settings.max_tokens, settings.temperature
        )
        seen = seen or (Message("system", settings.instructions or "Greet the person."),)
        self._orders.append(Generate(reply.number, ChatRequest(0, seen, options)))

    def _begin(self, reply: Reply) -> None:
        self.number = reply.number
        self._reply, self._waiting = reply, False
        reply.timing.asked = self._now
        unsure = self._speech is not None and not self._speech.item and self.settings.hands_free
        self._holding = reply.basis is not None or unsure
        self._tell(ReplyStarted(reply.number, reply.settings, reply.metadata))

    def _on_work(self, fact: Work) -> None:
        reply = self._reply
        assert reply
        match fact:
            case ChatDeltaReceived(_, written):
                self._write(reply, written)
            case AudioDeltaReceived():
                self._sound(reply, fact)
            case ClauseSpoken(_, clause):
                reply.clauses[clause].said = True
                self._complete(reply)
            case WorkFailed(_, error):
                self._orders.append(Cancel(reply.number))
                self._finish(reply, "failed", error.code, error)

    def _write(self, reply: Reply, written: ChatDelta) -> None:
        reply.tokens = max(reply.tokens, written.tokens)
        if written.text:
            reply.note_written(written, self._now)
            self._write_text(reply, written.text)
        for call in written.calls:
            self._write_call(reply, call)
        if written.finish:
            reply.finish = written.finish
            self._say(reply, reply.splitter.flush() if reply.settings.audio else [])
            self._complete(reply)

    def _write_text(self, reply: Reply, text: str) -> None:
        if not any(item.kind == "message" for item in reply.items):
            spoken = reply.settings.audio
            item = Item(self._new_id("item"), "message", spoken=spoken, status="in_progress")
            self._add_item(reply, item)
        self._tell(ReplyTextDelta(reply.number, _message_of(reply).id, text))
        if reply.settings.audio:
            self._say(reply, reply.splitter.push(text))

    def _say(self, reply: Reply, clauses: list[str]) -> None:
        for text in clauses:
            if reply.timing.clause is None:
                reply.timing.clause = self._now
            clause = Clause(text)
            reply.clauses.append(clause)
            if said := speakable(text):
                voice, speed = reply.settings.voice, reply.settings.speed
                number = len(reply.clauses) - 1
                self._orders.append(Speak(reply.number, number, said, voice, speed))
            else:
                clause.said = True

    def _write_call(self, reply: Reply, call: ToolCall) -> None:
        calls = [item for item in reply.items if item.kind == "call"]
        if call.number >= len(calls):
            id_, call_id = self._new_id("item"), call.id or self._new_id("call")
            item = Item(id_, "call", status="in_progress", call_id=call_id, name=call.name)
            self._add_item(reply, item)
        else:
            item = calls[call.number]
        item = replace(item, arguments=item.arguments + call.arguments)
        index = _put(reply.items, item)
        self._tell(ReplyCallDelta(reply.number, index, item.id, item.call_id, call.arguments))

    def _add_item(self, reply: Reply, item: Item) -> None:
        reply.items.append(item)
        self._tell(ReplyItemAdded(reply.number, len(reply.items) - 1, item, reply.remembered))

    def _sound(self, reply: Reply, sounded: AudioDeltaReceived) -> None:
        reply.note_sound(sounded.engine_ms, self._now)
        reply.clauses[sounded.clause].samples += len(sounded.pcm) // 2
        self._tell(ReplyAudioDelta(reply.number, _message_of(reply).id, sounded.pcm))

    def _complete(self, reply: Reply) -> None:
        if not reply.complete:
            return
        if reply.finish in ("length", "content_filter"):
            length = reply.finish == "length"
            self._finish(reply, "incomplete", "max_output_tokens" if length else "content_filter")
        else:
            self._finish(reply, "completed", None)

    def _cancel(self, reason: str) -> None:
        """Nothing of it is told any more, and what was held is thrown away."""
        reply = self._reply
        assert reply
        self._orders.append(Cancel(reply.number))
        self._held, self._holding = [], False
        if not reply.started:
            self._reply = None
            return
        self._finish(reply, "cancelled", reason)
        self._cut_short(reply)
        if reason == "client_cancelled":
            self._rest = ""

    def _finish(
        self, reply: Reply, status: str, reason: str | None, error: ClientError | None = None
    ) -> None:
        """The last words of a reply. While they are held it stays the one at hand."""
        done = status == "completed"
        for index, item in enumerate(reply.items):
            text = reply.text if item.kind == "message" else item.text
            ended = replace(item, text=text, status="completed" if done else "incomplete")
            reply.items[index] = ended
            if item.id in reply.told or status != "cancelled":
                self._tell(ReplyItemEnded(reply.number, index, ended, reply.remembered))
        told = tuple(i for i in reply.items if i.id in reply.told or status != "cancelled")
        audio_ms = reply.samples * 1000 // VOICE_RATE
        self._tell(
            ReplyEnded(
                reply.number,
                status,
                reason,
                told,
                reply.tokens,
                audio_ms,
                Stages(),  # known when it is told
                reply.settings,
                reply.metadata,
                error,
            )
        )

    # Telling.

    def _tell(self, event: OfReply) -> None:
        if self._holding:
            self._held.append(event)
        else:
            self._emit(event)

    def _release(self) -> None:
        held, self._held, self._holding = self._held, [], False
        for event in held:
            self._emit(event)

    def _emit(self, event: OfReply) -> None:
        reply = self._reply
        assert reply
        match event:
            case ReplyStarted():
                reply.started = True
            case ReplyItemAdded(item=item):
                reply.told.append(item.id)
                after = self.history.append(item) if reply.remembered else None
                event = replace(event, after=after)
            case ReplyItemEnded(item=item):
                self.history.update(item)
            case ReplyAudioDelta() | ReplyTextDelta():
                self._note_told(reply, isinstance(event, ReplyAudioDelta))
            case ReplyEnded():
                event = replace(event, stages=reply.timing.stages())
                self._reply = None
        self._orders.append(event)

    def _note_told(self, reply: Reply, sound: bool) -> None:
        if reply.timing.told is not None or sound != reply.settings.audio:
            return
        reply.timing.told = self._now
        if sound:
            self._spoken[_message_of(reply).id] = reply
            while len(self._spoken) > REMEMBERED_REPLIES:
                del self._spoken[next(iter(self._spoken))]

    def _new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}_{self._prefix}{self._ids:04d}"


def _message_of(reply: Reply) -> Item:
    return next(item for item in reply.items if item.kind == "message")


def _put(items: list[Item], item: Item) -> int:
    """In place of the one of its id; its index."""
    index = next(at for at, known in enumerate(items) if known.id == item.id)
    items[index] = item
    return index
