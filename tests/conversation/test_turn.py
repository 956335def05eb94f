"""The turn machine: tables of facts to orders, and random facts, legal and illegal."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.interfaces import VOICE_RATE, ChatDelta, Message, ToolCall, Word
from serve_app.conversation.events import (
    AudioDeltaReceived,
    Cancel,
    ChatDeltaReceived,
    ClauseSpoken,
    Configured,
    Generate,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ItemTruncated,
    ReplyAudioDelta,
    ReplyCallDelta,
    ReplyCancel,
    ReplyCreate,
    ReplyEnded,
    ReplyEvent,
    ReplyItemAdded,
    ReplyStarted,
    ReplyTextDelta,
    Speak,
    TranscriptFailed,
    TranscriptFinal,
    TranscriptPartial,
    TurnEnded,
    WorkFailed,
)
from serve_app.conversation.history import Item
from serve_app.conversation.reply import ReplySettings
from serve_app.conversation.turn import Turn, TurnState
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

SECOND = bytes(2 * VOICE_RATE)


def new(**wanted: Any) -> Turn:
    return Turn(ReplySettings(instructions="Be brief.", voice="v", **wanted), 64, "t")


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(word, 0, 1, 1.0) for word in text.split())


def play(turn: Turn, *facts: Any, now: float = 0.0) -> list[Any]:
    return [order for fact in facts for order in turn.on(fact, now)]


def state(turn: Turn) -> TurnState:
    """Read anew: a type checker believes that an attribute stays what it was."""
    return turn.state


def kinds(orders: list[Any]) -> list[str]:
    return [type(order).__name__ for order in orders]


def one(orders: list[Any], kind: type) -> Any:
    (found,) = [order for order in orders if isinstance(order, kind)]
    return found


def said(text: str, utterance: int = 0) -> list[Any]:
    """A whole utterance, as a live session tells of it."""
    return [
        UtteranceOpened(utterance, 0),
        SpeechConfirmed(),
        UtteranceEnded(utterance, 16_000, 8_000),
        TranscriptUpdate(utterance, True, 0, 16_000, words(text)),
    ]


def wrote(reply: int, text: str = "", finish: str | None = None, **more: Any) -> ChatDeltaReceived:
    return ChatDeltaReceived(reply, ChatDelta(0, text, finish=finish, **more))


def answer(reply: int, text: str = "I see. Go on.") -> list[Any]:
    """A reply of two clauses, written and spoken to its end; a second of sound each."""
    facts: list[Any] = [wrote(reply, text), wrote(reply, finish="stop")]
    for clause in (0, 1):
        facts += [AudioDeltaReceived(reply, clause, SECOND, 1.0), ClauseSpoken(reply, clause)]
    return facts


def test_a_turn_from_the_first_sound_to_the_last() -> None:
    turn = new()
    assert kinds(play(turn, UtteranceOpened(0, 0))) == ["TurnStarted"]
    assert state(turn) is TurnState.HEARING
    ended = play(turn, SpeechConfirmed(), UtteranceEnded(0, 16_000, 8_000))
    assert kinds(ended) == ["TurnEnded", "ItemAdded"] and state(turn) is TurnState.THINKING
    orders = play(turn, TranscriptUpdate(0, True, 0, 16_000, words("hello there")))
    assert kinds(orders) == ["TranscriptFinal", "ReplyStarted", "Generate"]
    assert one(orders, Generate).request.messages == (
        Message("system", "Be brief."),
        Message("user", "hello there"),
    )
    written = play(turn, wrote(1, "I see. Go"), wrote(1, " on.", "stop"))
    assert [order.text for order in written if isinstance(order, Speak)] == ["I see.", "Go on."]
    play(turn, AudioDeltaReceived(1, 0, SECOND, 1.0), now=1.0)
    assert state(turn) is TurnState.SPEAKING
    last = play(
        turn, ClauseSpoken(1, 0), AudioDeltaReceived(1, 1, SECOND, 1.0), ClauseSpoken(1, 1), now=1.5
    )
    done = one(last, ReplyEnded)
    assert done.status == "completed" and done.audio_ms == 2000
    assert done.items[0].text == "I see. Go on." and state(turn) is TurnState.LISTENING
    assert [item.text for item in turn.history] == ["hello there", "I see. Go on."]


def test_stages_say_where_the_time_went() -> None:
    turn = new()
    play(turn, *said("hello")[:3], now=10.0)
    play(turn, said("hello")[3], now=10.1)
    play(turn, wrote(1, "Yes, ", engine_ms=49.0), now=10.15)
    play(turn, wrote(1, "well, indeed. ", engine_ms=69.0), wrote(1, finish="stop"), now=10.17)
    play(turn, AudioDeltaReceived(1, 0, SECOND, 148.0), now=10.32)
    last = play(
        turn, ClauseSpoken(1, 0), AudioDeltaReceived(1, 1, SECOND, 1.0), ClauseSpoken(1, 1), now=11
    )
    stages = one(last, ReplyEnded).stages
    assert stages.vad_ms == 500.0 and stages.transcribe_ms == pytest.approx(100)
    assert stages.first_token_ms == pytest.approx(50) and stages.first_clause_ms == pytest.approx(
        70
    )
    assert stages.first_audio_ms == pytest.approx(150) and stages.total_ms == pytest.approx(320)
    assert stages.overhead_ms == pytest.approx(220 - 69 - 148, abs=0.2)


def test_speculation_that_was_right_is_told_at_once() -> None:
    turn = new()
    play(turn, *said("hello")[:2])
    orders = play(turn, EagerFinal(0, words("hello there")))
    assert kinds(orders) == ["Generate"], "nothing is told yet"
    assert one(orders, Generate).request.messages[-1] == Message("user", "hello there")
    held = play(turn, wrote(1, "I see. "), AudioDeltaReceived(1, 0, SECOND, 1.0))
    assert kinds(held) == ["Speak"]
    told = play(
        turn, UtteranceEnded(0, 9, 5), TranscriptUpdate(0, True, 0, 9, words("hello there"))
    )
    assert kinds(told) == [
        "TurnEnded",
        "ItemAdded",
        "TranscriptFinal",
        "ReplyStarted",
        "ReplyItemAdded",
        "ReplyTextDelta",
        "ReplyAudioDelta",
    ]


@pytest.mark.parametrize("right", [True, False])
def test_speculation_is_thrown_away_if_the_person_goes_on(right: bool) -> None:
    turn = new()
    play(turn, *said("hello")[:2], EagerFinal(0, words("hello")), wrote(1, "I see. "))
    if right:
        orders = play(turn, TurnResumed(0))
    else:
        ended = TranscriptUpdate(0, True, 0, 9, words("hello you"))
        orders = play(turn, UtteranceEnded(0, 9, 5), ended)
        assert one(orders, Generate).reply == 2
    assert one(orders, Cancel).reply == 1
    assert not any(isinstance(o, ReplyEvent) and o.reply == 1 for o in orders)
    assert play(turn, wrote(1, "too late")) == [], "it is for a dead reply"


def test_speculation_can_be_off() -> None:
    turn = new(preemptive_generation=False)
    assert play(turn, *said("hello")[:2], EagerFinal(0, words("hello"))) == play(
        new(preemptive_generation=False), *said("hello")[:2]
    )


def speaking(**wanted: Any) -> Turn:
    """Two clauses are written, one second of sound was told at 0 s."""
    turn = new(**wanted)
    play(turn, *said("hello"), wrote(1, "One two three four. And five."))
    play(turn, wrote(1, finish="stop"), AudioDeltaReceived(1, 0, SECOND, 1.0))
    return turn


def test_speech_stops_the_reply_and_history_keeps_what_was_heard() -> None:
    turn = speaking()
    play(turn, ClauseSpoken(1, 0), now=0.1)
    assert play(turn, UtteranceOpened(1, 0), now=0.5) == [], "it may be a cough"
    orders = play(turn, SpeechConfirmed(), now=0.5)
    assert kinds(orders) == ["Cancel", "ReplyItemEnded", "ReplyEnded", "TurnStarted"]
    ended = one(orders, ReplyEnded)
    assert (ended.status, ended.reason) == ("cancelled", "turn_detected")
    assert ended.items[0].text == "One two three four. And five."
    assert turn.history.messages()[-1] == Message("assistant", "One two"), "half of a second"
    assert play(turn, AudioDeltaReceived(1, 0, SECOND, 1.0)) == [], "silence"


def test_a_cough_holds_the_reply_and_lets_it_go_on() -> None:
    turn = speaking()
    play(turn, UtteranceOpened(1, 0), now=0.5)
    assert play(turn, ClauseSpoken(1, 0), AudioDeltaReceived(1, 1, SECOND, 1.0), now=0.6) == []
    orders = play(turn, UtteranceEnded(1, 5000, 4000), now=0.9)
    assert kinds(orders) == ["ReplyAudioDelta"]
    assert play(turn, TranscriptUpdate(1, True, 0, 9, ())) == [], "nobody hears of the cough"
    assert one(play(turn, ClauseSpoken(1, 1), now=1.0), ReplyEnded).status == "completed"


def test_a_reply_that_a_noise_interrupted_is_resumed() -> None:
    turn = speaking()
    play(turn, ClauseSpoken(1, 0), UtteranceOpened(1, 0), SpeechConfirmed(), now=0.5)
    orders = play(turn, UtteranceEnded(1, 5, 4), TranscriptUpdate(1, True, 0, 5, ()), now=1.5)
    assert [order.text for order in orders if isinstance(order, Speak)] == [
        "three four.",
        "And five.",
    ]
    assert not any(isinstance(order, Generate) for order in orders)
    again = speaking(resume_false_interruption=False)
    play(again, ClauseSpoken(1, 0), UtteranceOpened(1, 0), SpeechConfirmed(), now=0.5)
    orders = play(again, UtteranceEnded(1, 5, 4), TranscriptUpdate(1, True, 0, 5, ()), now=1.5)
    assert kinds(orders) == ["TurnEnded", "ItemAdded", "TranscriptFinal"]


def test_speech_after_the_last_sound_was_sent_but_not_played() -> None:
    turn = new()
    play(turn, *said("hello"), *answer(1))
    assert state(turn) is TurnState.LISTENING
    play(turn, UtteranceOpened(1, 0), now=0.5)
    assert kinds(play(turn, SpeechConfirmed(), now=0.5)) == ["TurnStarted"]
    assert turn.history.messages()[-1] == Message("assistant", "I")
    assert kinds(play(new(), UtteranceOpened(1, 0), now=5.0)) == ["TurnStarted"]


def test_a_reply_that_may_not_be_interrupted_goes_on() -> None:
    turn = speaking(interruptible=False)
    assert kinds(play(turn, UtteranceOpened(1, 0), SpeechConfirmed(), now=0.5)) == ["TurnStarted"]
    assert kinds(play(turn, AudioDeltaReceived(1, 0, SECOND, 1.0))) == ["ReplyAudioDelta"]


def test_the_client_may_correct_what_was_heard() -> None:
    turn = new()
    play(turn, *said("hello"), *answer(1))
    item = list(turn.history)[-1]
    orders = play(turn, ItemTruncate(item.id, 1000))
    assert one(orders, ItemTruncated).audio_end_ms == 1000
    assert turn.history.messages()[-1].content == "I see."
    with pytest.raises(ClientError) as error:
        turn.on(ItemTruncate("nobody", 1), 0.0)
    assert error.value.code == "item_not_found"
    user = next(iter(turn.history))
    with pytest.raises(ClientError, match="only a spoken reply"):
        turn.on(ItemTruncate(user.id, 1), 0.0)


def test_push_to_talk_tells_of_items_only() -> None:
    turn = new(hands_free=False, reply=False)
    orders = play(turn, *said("hello"))
    assert kinds(orders) == ["ItemAdded", "TranscriptFinal"]
    assert one(orders, ItemAdded).committed
    assert kinds(play(turn, ReplyCreate())) == ["ReplyStarted", "Generate"]


def test_a_reply_that_is_asked_for_at_once_waits_for_the_words() -> None:
    turn = new(hands_free=False, reply=False)
    play(turn, *said("what time is it")[:3])
    assert kinds(play(turn, ReplyCreate())) == ["ReplyStarted"]
    orders = play(turn, said("what time is it")[3])
    assert kinds(orders) == ["TranscriptFinal", "Generate"]
    assert one(orders, Generate).request.messages[-1] == Message("user", "what time is it")
    again = new(hands_free=False, reply=False)
    play(again, *said("x")[:3], ReplyCreate())
    assert kinds(play(again, ReplyCancel())) == ["Cancel", "ReplyEnded"]
    assert kinds(play(again, said("x")[3])) == ["TranscriptFinal"]
    failing = new(hands_free=False, reply=False)
    play(failing, *said("x")[:3], ReplyCreate())
    failed = play(failing, UtteranceFailed(0, ClientError("utterance_failed", "")))
    assert kinds(failed) == ["TranscriptFailed", "Generate"]


def test_a_reply_in_text_orders_no_speech() -> None:
    turn = new(audio=False)
    play(turn, ItemCreate(Item("mine", "message", "user", "hello")))
    orders = play(turn, ReplyCreate(metadata={"a": "b"}), wrote(1, "Hi. "), wrote(1, "", "stop"))
    assert kinds(orders) == [
        "ReplyStarted",
        "Generate",
        "ReplyItemAdded",
        "ReplyTextDelta",
        "ReplyItemEnded",
        "ReplyEnded",
    ]
    assert one(orders, ReplyEnded).metadata == {"a": "b"}
    assert one(orders, ReplyEnded).stages.total_ms == 0.0


def test_tools_are_called_and_their_answers_used() -> None:
    turn = new()
    first, second = ToolCall(0, "c1", "look_up", '{"a"'), ToolCall(0, "", "", ": 1}")
    orders = play(turn, *said("look it up"), wrote(1, calls=(first,)), wrote(1, calls=(second,)))
    assert [o.arguments for o in orders if isinstance(o, ReplyCallDelta)] == ['{"a"', ": 1}"]
    done = one(play(turn, wrote(1, finish="tool_calls")), ReplyEnded)
    assert done.items[0].arguments == '{"a": 1}' and done.status == "completed"
    play(turn, ItemCreate(Item("out", "output", text="42", call_id="c1")))
    asked = one(play(turn, ReplyCreate()), Generate).request.messages
    assert asked[-2].calls == (ToolCall(0, "c1", "look_up", '{"a": 1}'),)
    assert asked[-1] == Message("tool", "42", (), "c1")


def test_one_reply_at_a_time_and_none_to_cancel() -> None:
    turn = new()
    with pytest.raises(ClientError, match="Cancellation failed"):
        turn.on(ReplyCancel(), 0.0)
    play(turn, ItemCreate(Item("", "message", "user", "hi")), ReplyCreate())
    with pytest.raises(ClientError) as error:
        turn.on(ReplyCreate(), 0.0)
    assert error.value.code == "conversation_already_has_active_response"
    with pytest.raises(ClientError):
        turn.on(ReplyCancel(7), 0.0)
    orders = play(turn, ReplyCancel(1))
    assert kinds(orders) == ["Cancel", "ReplyEnded"]
    assert one(orders, ReplyEnded).reason == "client_cancelled"


def test_a_reply_out_of_band_leaves_no_trace() -> None:
    turn = new(audio=False)
    play(turn, *said("hello"), wrote(1, "Hi.", "stop"))
    asked = play(turn, ReplyCreate(None, (Message("user", "Classify."),), False))
    assert one(asked, Generate).request.messages[-1] == Message("user", "Classify.")
    play(turn, wrote(2, "Done.", "stop"))
    assert [item.text for item in turn.history] == ["hello", "Hi."]


def test_what_fails_is_told_and_the_turn_goes_on() -> None:
    turn = new()
    orders = play(
        turn, *said("hello")[:3], UtteranceFailed(0, ClientError("utterance_failed", "no"))
    )
    assert kinds(orders)[-1] == "TranscriptFailed" and state(turn) is TurnState.LISTENING
    orders = play(turn, *said("hello", 1), WorkFailed(1, ClientError("reply_failed", "it broke")))
    failed = one(orders, ReplyEnded)
    assert failed.status == "failed" and failed.error.code == "reply_failed"
    assert kinds(orders)[-2] == "Cancel" and state(turn) is TurnState.LISTENING


def test_a_long_reply_is_cut_and_said_to_be_incomplete() -> None:
    turn = new(audio=False)
    orders = play(turn, *said("hello"), wrote(1, "On and on", "length"))
    ended = one(orders, ReplyEnded)
    assert (ended.status, ended.reason) == ("incomplete", "max_output_tokens")


def test_silence_gets_no_reply() -> None:
    turn = new()
    assert not any(isinstance(order, Generate) for order in play(turn, *said("")))


def test_a_new_sentence_before_the_reply_is_answered_with_the_old_one() -> None:
    turn = new()
    play(turn, *said("I want"), wrote(1, "What"))
    orders = play(turn, *said("some tea", 1))
    assert one(orders, Cancel).reply == 1
    asked = one(orders, Generate).request.messages
    assert [m.content for m in asked if m.role == "user"] == ["I want", "some tea"]


def test_clearing_forgets_what_was_being_said() -> None:
    turn = speaking()
    play(turn, UtteranceOpened(1, 0))
    assert kinds(
        play(turn, UtteranceDropped(1), ClauseSpoken(1, 0), AudioDeltaReceived(1, 1, SECOND, 1.0))
    ) == ["ReplyAudioDelta"]


@pytest.mark.parametrize(
    "fact",
    [UtteranceEnded(3, 1, 1), EagerFinal(3, ()), TurnResumed(3), UtteranceDropped(3)],
    ids=lambda fact: type(fact).__name__,
)
def test_what_cannot_happen_is_a_violation(fact: Any) -> None:
    with pytest.raises(ProtocolViolation):
        new().on(fact, 0.0)


NUMBER = st.integers(0, 4)
TEXT = st.sampled_from(["", "yes", "I see. Go on, please. ", "1, 2"])
FACTS = st.one_of(
    st.builds(UtteranceOpened, NUMBER, NUMBER),
    st.just(SpeechConfirmed()),
    st.builds(EagerFinal, NUMBER, TEXT.map(words)),
    st.builds(TurnResumed, NUMBER),
    st.builds(UtteranceDropped, NUMBER),
    st.builds(UtteranceEnded, NUMBER, st.just(9), st.just(5)),
    st.builds(TranscriptUpdate, NUMBER, st.booleans(), st.just(0), st.just(9), TEXT.map(words)),
    st.builds(UtteranceFailed, NUMBER, st.just(ClientError("utterance_failed", ""))),
    st.builds(
        lambda r, t, f: wrote(r, t, f), NUMBER, TEXT, st.sampled_from([None, "stop", "length"])
    ),
    st.builds(lambda r: wrote(r, calls=(ToolCall(0, "c", "f", "{}"),)), NUMBER),
    st.builds(lambda r: WorkFailed(r, ClientError("reply_failed", "")), NUMBER),
    st.builds(ReplyCreate, remembered=st.booleans()),
    st.builds(ReplyCancel, st.none() | NUMBER),
    st.builds(ItemTruncate, st.sampled_from([f"item_t{n:04}" for n in range(1, 6)]), NUMBER),
    st.builds(ItemDelete, st.sampled_from([f"item_t{n:04}" for n in range(1, 6)])),
    st.builds(ItemRetrieve, st.just("item_t0001")),
    st.builds(
        lambda h, i, a: Configured(ReplySettings(hands_free=h, interruptible=i, audio=a)),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.just("speak"),
)


class Engines:
    """Speaks what was ordered and not cancelled, one clause at a time; watches what is told."""

    def __init__(self) -> None:
        self.clauses: list[Speak] = []
        self.open: set[int] = set()
        self.ended: set[int] = set()
        self.items: set[str] = set()
        self.sounded = 0
        self.told = 0

    def next(self) -> list[Any]:
        if not self.clauses:
            return []
        clause = self.clauses.pop(0)
        return [
            AudioDeltaReceived(clause.reply, clause.clause, bytes(480), 1.0),
            ClauseSpoken(clause.reply, clause.clause),
        ]

    def see(self, order: Any) -> None:
        match order:
            case Speak():
                self.clauses.append(order)
            case Cancel(reply):
                self.clauses = [clause for clause in self.clauses if clause.reply != reply]
            case ReplyStarted(reply):
                assert not self.open, "one reply at a time"
                assert reply not in self.ended
                self.open.add(reply)
            case ReplyItemAdded(item=item):
                assert item.id not in self.items, "an item is added once"
                self.items.add(item.id)
            case ItemAdded(item):
                assert item.id not in self.items
                self.items.add(item.id)
            case ReplyEnded(reply, status):
                assert status in ("completed", "cancelled", "failed", "incomplete")
                self.open.remove(reply)
                self.ended.add(reply)
        if isinstance(order, ReplyEvent) and not isinstance(order, ReplyEnded):
            assert order.reply in self.open, "nothing is told of a dead reply"
        if isinstance(order, ReplyAudioDelta):
            self.told += len(order.pcm)
        if isinstance(order, ReplyTextDelta):
            assert order.item in self.items
        if isinstance(order, TranscriptPartial | TranscriptFinal | TranscriptFailed | TurnEnded):
            assert order.item


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(FACTS, st.floats(0, 2)), max_size=40))
def test_whatever_happens_only_violations_and_no_word_of_the_dead(
    story: list[tuple[Any, float]],
) -> None:
    turn, engines, now = new(), Engines(), 0.0
    for fact, later in story:
        now += later
        for happened in engines.next() if fact == "speak" else [fact]:
            try:
                orders = turn.on(happened, now)
            except (ProtocolViolation, ClientError):
                continue
            for order in orders:
                engines.see(order)
    ids = [item.id for item in turn.history]
    assert len(ids) == len(set(ids))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["", "hi", "go on please"]), max_size=8), st.booleans())
def test_every_utterance_is_accounted_for(texts: list[str], preemptive_generation: bool) -> None:
    """Whatever is said ends in exactly one final, and what is spoken is told or cancelled."""
    turn = new(preemptive_generation=preemptive_generation)
    finals, started, ended = [], 0, 0
    for number, text in enumerate(texts):
        facts = said(text, number)
        facts.insert(2, EagerFinal(number, words(text)))
        for order in play(turn, *facts, now=float(number)):
            finals += [order.text] if isinstance(order, TranscriptFinal) else []
            started += isinstance(order, ReplyStarted)
            ended += isinstance(order, ReplyEnded)
    assert finals == texts
    assert started - ended == (1 if turn.replying else 0)
