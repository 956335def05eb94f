"""A spoken turn as a state machine: listen, think, speak. Pure: no clock, no tasks, no wire.

Facts go into `Turn.on` with the time; orders come out. Work for a reply carries the reply's number,
so work for a reply that was cancelled is recognised as late and dropped.

A reply may begin before it is sure that the person has ended (preemptive generation), and it goes
on while it is not sure that a noise is an interruption. Meanwhile its events are withheld.
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
)
from serve_app.conversation.context_window import fitted
from serve_app.conversation.events import (
    ClientFact,
    Configured,
    Fact,
    Generate,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    Order,
    ReplyCancel,
    ReplyCreate,
    SpeechFact,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
    TurnEnded,
    TurnStarted,
)
from serve_app.conversation.history import History, Item
from serve_app.conversation.replies import Replies, TurnOutbox
from serve_app.conversation.reply import Reply, ReplySettings
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


class TurnState(Enum):
    LISTENING = auto()
    HEARING = auto()
    THINKING = auto()
    SPEAKING = auto()


@dataclass(slots=True)
class _Speech:
    """An utterance of the person, until its final."""

    utterance: int
    start: int
    item: str = ""
    """Its id in the history; "" while it may still be a cough."""
    ended: float = 0.0
    vad_ms: float = 0.0


class Turn:
    """`on(fact, now)` with `now` in seconds of any clock that never goes back.

    Raises `ClientError` for what a client may not ask now, and changes nothing then.
    """

    def __init__(self, settings: ReplySettings, max_items: int, prefix: str) -> None:
        self.settings = settings
        self.history = History(max_items)
        self._outbox = TurnOutbox(prefix)
        self._replies = Replies(self.history, self._outbox)
        self._speech: _Speech | None = None
        self._pending: dict[int, _Speech] = {}
        """Speech that has ended, and whose final has not come."""
        self._waiting = False
        """The current reply waits for finals before it is written."""
        self._rest = ""
        """The text of an interrupted reply that was not heard."""

    @property
    def state(self) -> TurnState:
        if self._speech and self._speech.item:
            return TurnState.HEARING
        reply = self._replies.current
        if reply and reply.audible and not reply.basis:
            return TurnState.SPEAKING
        return TurnState.THINKING if reply or self._pending else TurnState.LISTENING

    @property
    def replying(self) -> bool:
        reply = self._replies.current
        return reply is not None and reply.basis is None

    def on(self, fact: Fact, now: float) -> list[Order]:
        self._outbox.begin(now)
        if isinstance(fact, SpeechFact):
            self._on_speech(fact)
        elif isinstance(fact, ClientFact):
            self._on_client(fact)
        else:
            self._replies.on_work(fact)
        return self._outbox.orders

    # The person.

    def _on_speech(self, fact: SpeechFact) -> None:
        match fact:
            case UtteranceOpened(utterance, start) if self._speech is None:
                self._open(_Speech(utterance, start))
            case SpeechConfirmed():
                self._on_confirmed()
            case EagerFinal(utterance, words) if self._is_current(utterance):
                self._preempt(" ".join(word.text for word in words))
            case TurnResumed(utterance) if self._is_current(utterance):
                self._drop_preempted()
            case UtteranceEnded(utterance, until, voice_until) if self._is_current(utterance):
                self._end(until, voice_until)
            case UtteranceDropped(utterance) if self._is_current(utterance):
                self._drop_preempted()
                self._speech = None
                self._replies.release()
            case TranscriptUpdate():
                self._on_transcript(fact)
            case UtteranceFailed(utterance, error):
                self._on_failed(utterance, error)
            case _:
                raise ProtocolViolation(f"{type(fact).__name__} in {self.state.name}")

    def _is_current(self, utterance: int) -> bool:
        return self._speech is not None and self._speech.utterance == utterance

    def _open(self, speech: _Speech) -> None:
        """During a reply it may be a cough: wait for `SpeechConfirmed`."""
        self._speech = speech
        if not self.settings.hands_free:
            speech.item = self._outbox.new_id("item")
        elif self.settings.interruptible and (self._replies.current or self._replies.is_playing):
            self._replies.withholding = True
        else:
            self._announce(speech)

    def _announce(self, speech: _Speech) -> None:
        speech.item = self._outbox.new_id("item")
        self._outbox.put(TurnStarted(speech.item, speech.start))

    def _on_confirmed(self) -> None:
        speech = self._speech
        if speech is None or speech.item or not self.settings.hands_free:
            return
        self._interrupt()
        self._announce(speech)

    def _interrupt(self) -> None:
        """The person speaks: the reply ends where the person stopped hearing it."""
        if self._replies.current:
            return self._cancel("turn_detected")
        self._replies.withholding = False
        if last := self._replies.last_spoken:
            self._cut_short(last)

    def _cut_short(self, reply: Reply) -> None:
        if not reply.settings.audio:
            return
        heard = reply.heard_at(self._outbox.now)
        self._rest = reply.text[len(heard) :] if self.settings.resume_false_interruption else ""
        for item in self.history:
            if item.id in reply.sent_items and item.kind == "message" and item.heard is None:
                self.history.truncate(item.id, heard)

    def _preempt(self, text: str) -> None:
        """Start a reply to the words so far, in case the person says no more."""
        settings, speech = self.settings, self._speech
        wanted = settings.preemptive_generation and settings.reply and settings.hands_free
        busy = self._replies.current or self._pending
        if text and wanted and speech and speech.item and not busy:
            self._start(self._new_reply(basis=text), [Message("user", text)])

    def _drop_preempted(self) -> None:
        reply = self._replies.current
        if reply and reply.basis is not None:
            self._cancel("turn_detected")

    def _end(self, until: int, voice_until: int) -> None:
        speech, self._speech = self._speech, None
        assert speech
        if self.settings.hands_free and not speech.item:
            return self._replies.release()  # a cough: the reply goes on
        speech.ended = self._outbox.now
        speech.vad_ms = (until - voice_until) * 1000 / RATE
        self._pending[speech.utterance] = speech
        if self.settings.hands_free:
            self._outbox.put(TurnEnded(speech.item, until))
        speech.item = speech.item or self._outbox.new_id("item")
        item = Item(speech.item, "message", "user", spoken=True)
        self._outbox.put(ItemAdded(item, self.history.append(item), committed=True))

    def _on_transcript(self, update: TranscriptUpdate) -> None:
        text = " ".join(word.text for word in update.words)
        if update.final:
            return self._on_final(update.utterance, text, update.until - update.start)
        current = self._is_current(update.utterance)
        speech = self._speech if current else self._pending.get(update.utterance)
        if speech and speech.item:
            self._outbox.put(TranscriptPartial(speech.item, text))

    def _on_final(self, utterance: int, text: str, samples: int) -> None:
        speech = self._pending.pop(utterance, None)
        if speech is None:
            return  # a cough
        if speech.item in self.history:
            self.history.update(replace(self.history.get(speech.item), text=text))
        self._outbox.put(TranscriptFinal(speech.item, text, samples * 1000 // RATE))
        self._answer(speech, text)

    def _on_failed(self, utterance: int, error: ClientError) -> None:
        speech = self._pending.pop(utterance, None)
        if speech:
            self._drop_preempted()
            self._outbox.put(TranscriptFailed(speech.item, error))
            self._generate_waiting()

    def _generate_waiting(self) -> bool:
        """Whether a reply waits for finals; once they are all there, it is generated."""
        reply = self._replies.current
        if not reply or not self._waiting:
            return False
        if not self._pending:
            self._waiting = False
            self._generate(reply, self.history.messages())
        return True

    def _answer(self, speech: _Speech, text: str) -> None:
        reply = self._replies.current
        if reply and self._waiting:
            self._time(reply, speech)
        if self._generate_waiting():
            return
        if reply and reply.basis is not None and reply.basis == text:
            reply.basis = None
            self._time(reply, speech)
            return self._replies.release()
        self._drop_preempted()
        if not text.strip():
            return self._speak_rest()
        self._rest = ""
        newer = self._pending or (self._speech and self._speech.item)
        if self.settings.reply and not newer and not self._replies.current:
            reply = self._new_reply()
            self._time(reply, speech)
            self._start(reply)

    def _time(self, reply: Reply, speech: _Speech) -> None:
        timing = reply.timing
        timing.ended, timing.transcribed = speech.ended, self._outbox.now
        timing.vad_ms = speech.vad_ms

    def _speak_rest(self) -> None:
        """The interruption had no words: speak the rest of the reply."""
        rest, self._rest = self._rest.strip(), ""
        if not rest or self._replies.current:
            return
        reply = self._new_reply()
        self._begin(reply)
        self._replies.write(reply, ChatDelta(0, rest))
        self._replies.write(reply, ChatDelta(0, finish="stop"))

    # The client.

    def _on_client(self, fact: ClientFact) -> None:
        match fact:
            case Configured(settings):
                self._configure(settings)
            case ItemCreate(item, after):
                item = item if item.id else replace(item, id=self._outbox.new_id("item"))
                self._outbox.put(ItemAdded(item, self.history.insert(item, after)))
            case ItemDelete(id_):
                self.history.delete(id_)
                self._outbox.put(ItemDeleted(id_))
            case ItemRetrieve(id_):
                self._outbox.put(ItemRetrieved(self.history.get(id_)))
            case ItemTruncate():
                self._truncate(fact)
            case ReplyCreate():
                self._on_requested(fact)
            case ReplyCancel(number):
                self._on_cancelled(number)

    def _configure(self, settings: ReplySettings) -> None:
        if self.settings.hands_free and not settings.hands_free:
            self._drop_preempted()
            self._replies.release()
        self.settings = settings

    def _truncate(self, fact: ItemTruncate) -> None:
        reply = self._replies.of_item(fact.id)
        heard = reply.heard(fact.audio_end_ms * VOICE_RATE // 1000) if reply else ""
        self.history.truncate(fact.id, heard)
        self._outbox.put(ItemTruncated(fact.id, fact.audio_end_ms))

    def _on_requested(self, fact: ReplyCreate) -> None:
        if self.replying:
            raise ClientError(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress: wait for response.done",
            )
        self._drop_preempted()
        settings = fact.settings or self.settings
        number = self._replies.number + 1
        reply = Reply(number, settings, fact.metadata, fact.remembered)
        self._start(reply, messages=fact.messages)

    def _on_cancelled(self, number: int | None) -> None:
        if not self.replying or number not in (None, self._replies.number):
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
        """Reply to the history and `more`, or to `messages` instead.

        Speech that is still being recognised belongs to the history: a reply waits for it.
        """
        self._begin(reply)
        self._waiting = bool(self._pending) and messages is None
        if not self._waiting:
            history = self.history.messages() + (more or [])
            self._generate(reply, history if messages is None else list(messages))

    def _generate(self, reply: Reply, messages: list[Message]) -> None:
        settings = reply.settings
        seen: tuple[Message, ...] = ()
        if messages:
            seen = fitted(settings.instructions, messages, settings.max_history_tokens)
        options = ChatOptions(
            settings.tools, settings.tool_choice, settings.max_tokens, settings.temperature
        )
        seen = seen or (Message("system", settings.instructions or "Greet the person."),)
        self._outbox.put(Generate(reply.number, ChatRequest(0, seen, options)))

    def _new_reply(self, basis: str | None = None) -> Reply:
        return Reply(self._replies.number + 1, self.settings, basis=basis)

    def _begin(self, reply: Reply) -> None:
        self._waiting = False
        unsure = self._speech is not None and not self._speech.item and self.settings.hands_free
        self._replies.begin(reply, withhold=reply.basis is not None or unsure)

    def _cancel(self, reason: str) -> None:
        reply = self._replies.current
        if reply and self._replies.cancel(reply, reason):
            self._cut_short(reply)
            if reason == "client_cancelled":
                self._rest = ""
