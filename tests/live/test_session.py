"""The session machine: tables of facts to orders, and random facts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.interfaces import (
    Edge,
    Endpoint,
    Hypothesis,
    Resume,
    SpeechOptions,
    Transition,
    VadResult,
    Word,
)
from serve_app.config import Limits
from serve_app.errors import ClientError, ProtocolViolation
from serve_app.live.events import (
    AudioReceived,
    Cleared,
    ClientErred,
    ClientVanished,
    Close,
    DetectSpeech,
    DrainEnded,
    DrainStarted,
    EagerFinal,
    ErrorReport,
    FinalizeRequested,
    KeptAlive,
    Listening,
    ProgressReport,
    QualityChanged,
    Quarantined,
    Recognize,
    Reconfigured,
    SpeechBoundary,
    Started,
    StopRequested,
    Ticked,
    TranscriberAttached,
    TranscriptUpdate,
    TurnResumed,
    Unserved,
    UtteranceEnded,
    UtteranceEvent,
    UtteranceFailed,
    VadAttached,
)
from serve_app.live.resume_point import ResumePoint
from serve_app.live.session import Session, SessionState

SECOND = bytes(32_000)
HELLO = (Word("hello", 0, 8000, 0.9),)


def new(**limits: Any) -> Session:
    session = Session(Limits(**limits), Listening(), now=0.0)
    session.on(VadAttached(), 0.0)
    session.on(TranscriberAttached(), 0.0)
    return session


def play(session: Session, *facts: Any, now: float = 1.0) -> list[Any]:
    """What a transcription session orders; how an utterance goes is `told`'s."""
    orders = [order for fact in facts for order in session.on(fact, now)]
    return [order for order in orders if not isinstance(order, UtteranceEvent)]


def judged(until_s: float, *transitions: tuple[bool, float], voiced: bool = True) -> VadResult:
    edges = {True: Edge.START, False: Edge.END}
    changes = tuple(Transition(edges[on], int(at * 16_000)) for on, at in transitions)
    return VadResult(0, int(until_s * 16_000), changes, voiced)


def final(utterance: int, until_s: float = 1, words: tuple[Word, ...] = HELLO) -> Hypothesis:
    return Hypothesis(0, utterance, int(until_s * 16_000), words, True)


def state_of(session: Session) -> SessionState:
    return session.state


def codes(orders: list[Any]) -> list[str]:
    return [
        order.error.code for order in orders if isinstance(order, ErrorReport | UtteranceFailed)
    ]


def test_all_audio_goes_to_the_vad_and_silence_no_further() -> None:
    session = new()
    assert play(session, AudioReceived(SECOND)) == [DetectSpeech(SECOND, None)]
    assert play(session, judged(1, voiced=False)) == []
    assert session.state is SessionState.ACTIVE


def test_an_utterance_from_its_prefix_to_its_final() -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(1, voiced=False), AudioReceived(SECOND))
    orders = play(session, judged(2, (True, 1.0)))
    assert orders[0] == SpeechBoundary(True, 16_000)
    assert [len(order.pcm) for order in orders[1:]] == [int(0.3 * 32_000) + 32_000]
    play(session, AudioReceived(SECOND))
    orders = play(session, judged(3, (False, 2.5)))
    assert orders[0].ended is False and len(orders[0].pcm) == 16_000
    assert orders[1:] == [SpeechBoundary(False, 40_000), Recognize(0, b"", True, None)]
    told = play(session, final(0, 1.8))[0]
    point = ResumePoint(40_000, 32_000, False, 1, 40_000, 40_000, 28_800, len(HELLO), 0, 48_000)
    assert told == TranscriptUpdate(0, True, int(0.7 * 16_000), 40_000, HELLO, None, point)


def test_the_prefix_does_not_reach_into_the_utterance_before() -> None:
    session = new()
    play(session, AudioReceived(SECOND * 2), judged(1, (True, 0.0), (False, 1.0)))
    orders = play(session, judged(2, (True, 1.1)))
    begun = next(order for order in orders if isinstance(order, Recognize))
    assert begun.utterance == 1 and len(begun.pcm) == 32_000


def test_partials_replace_words_from_keep_on_and_say_how_far_they_speak() -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(1, (True, 0.0)))
    first = Hypothesis(0, 0, 8000, (Word("a", 0, 1, 1.0), Word("b", 1, 2, 1.0)), False)
    second = Hypothesis(0, 0, 16_000, (Word("c", 1, 2, 1.0),), False, keep=1)
    told = play(session, first, second)
    assert [(" ".join(w.text for w in t.words), t.until) for t in told] == [
        ("a b", 8000),
        ("a c", 16_000),
    ]


def test_a_client_that_wants_no_partials_gets_none() -> None:
    session = new()
    play(session, Started(SpeechOptions(interim_results=False)))
    play(session, AudioReceived(SECOND), judged(1, (True, 0.0)))
    assert play(session, Hypothesis(0, 0, 8000, HELLO, False)) == []


def test_finals_keep_the_order_of_speech() -> None:
    session = new()
    play(session, AudioReceived(SECOND * 3))
    play(session, judged(3, (True, 0.0), (False, 1.0), (True, 2.0), (False, 3.0)))
    assert play(session, final(1)) == []
    assert [order.utterance for order in play(session, final(0))] == [0, 1]


def test_stop_waits_for_the_vad_and_every_final() -> None:
    session = new()
    play(session, AudioReceived(SECOND))
    assert play(session, StopRequested()) == []
    assert session.state is SessionState.CLOSING
    orders = play(session, judged(1, (True, 0.2)))
    assert orders[-1] == Recognize(0, b"", True, None)
    told, closed = play(session, final(0))
    assert told.final and closed.code == 1000
    assert state_of(session) is SessionState.CLOSED
    assert closed.metrics.words == 1 and closed.metrics.audio_ms == 1000


def test_stop_before_anything_closes_at_once() -> None:
    assert [type(order) for order in play(new(), StopRequested())] == [Close]


def test_finalize_ends_the_utterance_after_what_was_received() -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(0.5, (True, 0.0)))
    assert play(session, FinalizeRequested()) == []
    orders = play(session, judged(1.0))
    assert orders[-1] == Recognize(0, b"", True, None)
    assert play(session, AudioReceived(SECOND), judged(2.0, voiced=False))[1:] == []
    again = play(session, AudioReceived(SECOND), judged(3.0))
    assert [order.utterance for order in again[1:]] == [1]


def test_a_long_utterance_is_cut_in_two_without_losing_a_sample() -> None:
    session = new(max_utterance_s=1.5)
    orders = play(session, AudioReceived(SECOND * 4), judged(4, (True, 0.0)))
    lengths: dict[int, int] = {}
    for order in orders:
        if isinstance(order, Recognize):
            lengths[order.utterance] = lengths.get(order.utterance, 0) + len(order.pcm) // 2
    assert lengths == {0: 24_000, 1: 24_000, 2: 16_000}


def test_a_new_vad_replica_hears_the_speech_again_from_a_frames_border() -> None:
    session = new()
    audio = bytes(range(256)) * 125
    play(session, AudioReceived(audio), judged(8010 / 16_000, (True, 0.0)))
    assert play(session, VadAttached()) == [DetectSpeech(audio, Resume(0, True, Endpoint(), 8010))]


def test_a_new_transcriber_gets_every_utterance_whose_final_has_not_come() -> None:
    session = new()
    play(session, AudioReceived(SECOND * 3))
    play(session, judged(3, (True, 0.0), (False, 1.0), (True, 2.0)))
    again = play(session, TranscriberAttached())
    assert [(o.utterance, len(o.pcm), o.ended) for o in again] == [
        (0, 32_000, True),
        (1, 41_600, False),
    ]
    assert session.metrics().replays == 1


def test_the_client_is_told_that_nothing_recognises_speech_and_the_session_goes_on() -> None:
    session = new()
    (told,) = play(session, Unserved())
    assert told.error.code == "engine_unavailable" and told.error.close is None
    play(session, VadAttached(), AudioReceived(SECOND))
    assert state_of(session) is SessionState.ACTIVE


def test_a_quarantined_utterance_fails_when_it_ends_and_the_session_goes_on() -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(1, (True, 0.5)))
    assert session.awaits_words
    assert play(session, Quarantined()) == [], "it is still being spoken"
    assert not session.awaits_words
    assert not [o for o in play(session, TranscriberAttached()) if isinstance(o, Recognize)]
    orders = play(session, AudioReceived(SECOND), judged(2, (False, 1.5)))
    (failed,) = [order for order in orders if isinstance(order, UtteranceFailed)]
    assert failed.error.code == "request_quarantined"
    assert not [order for order in orders if isinstance(order, Recognize)]
    again = play(session, AudioReceived(SECOND), judged(3, (True, 2.5)))
    assert [order for order in again if isinstance(order, Recognize)], "the next one is heard"


def test_progress_speaks_of_what_was_dealt_with() -> None:
    session = new()
    play(session, AudioReceived(SECOND * 2), judged(2, (True, 1.0)))
    assert play(session, KeptAlive()) == [ProgressReport(int(0.7 * 16_000))]
    play(session, Hypothesis(0, 0, 1600, (), False))
    assert play(session, KeptAlive()) == [ProgressReport(int(0.8 * 16_000))]


def test_a_failed_utterance_is_told_and_the_session_goes_on() -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(1, (True, 0.0), (False, 1.0)))
    assert codes(play(session, final(0)._replace(failure="it broke"))) == ["utterance_failed"]
    assert session.state is SessionState.ACTIVE


@pytest.mark.parametrize(
    ("limits", "facts", "now", "code", "state"),
    [
        ({"max_buffered_audio_s": 1.5}, [AudioReceived(SECOND), AudioReceived(SECOND)], 1, "audio_overrun", SessionState.CLOSING),
        ({"max_session_s": 1.5}, [AudioReceived(SECOND), AudioReceived(SECOND)], 1, "session_too_long", SessionState.CLOSING),
        ({"max_session_s": 50}, [KeptAlive(), Ticked()], 51, "session_too_long", SessionState.CLOSED),
        ({"idle_timeout_s": 5}, [Ticked()], 6, "idle_timeout", SessionState.CLOSED),
        ({"max_silence_s": 1}, [AudioReceived(SECOND * 2), judged(2, voiced=False)], 1, "silence_timeout", SessionState.CLOSED),
    ],
)  # fmt: skip
def test_limits_end_a_session_with_their_code(
    limits: dict[str, Any], facts: list[Any], now: float, code: str, state: SessionState
) -> None:
    """It closes at once, or once the finals of what was accepted are in."""
    session = new(**limits)
    assert code in codes(play(session, *facts, now=now))
    assert session.state is state


def test_a_fatal_error_still_brings_the_finals_of_what_was_accepted() -> None:
    session = new(max_buffered_audio_s=1.5)
    play(session, AudioReceived(SECOND), AudioReceived(SECOND))
    play(session, judged(1, (True, 0.0)))
    told, closed = play(session, final(0))
    assert told.words == HELLO and closed.code == 1008


def test_finals_that_never_come_end_in_a_timeout() -> None:
    session = new(closing_timeout_s=5)
    play(session, AudioReceived(SECOND), judged(1, (True, 0.0)), StopRequested(), now=1)
    assert play(session, Ticked(), now=3) == []
    orders = play(session, Ticked(), now=7)
    assert codes(orders) == ["engine_timeout"] and orders[-1].code == 1011


@pytest.mark.parametrize(
    ("before", "fact", "code"),
    [
        ([Started(SpeechOptions())], Started(SpeechOptions()), "start_not_first"),
        ([AudioReceived(SECOND), StopRequested()], AudioReceived(SECOND), "audio_after_stop"),
    ],
)
def test_what_comes_out_of_its_time(before: list[Any], fact: Any, code: str) -> None:
    session = new()
    play(session, *before)
    assert codes(play(session, fact)) == [code]


def test_a_harmless_error_leaves_the_session_open() -> None:
    session = new()
    assert codes(play(session, ClientErred(ClientError("invalid_json", "no")))) == ["invalid_json"]
    assert session.state is SessionState.CREATED


def test_nothing_comes_out_of_a_closed_session() -> None:
    session = new()
    play(session, ClientVanished())
    assert play(session, AudioReceived(SECOND), final(0), Ticked(), StopRequested()) == []


facts = st.one_of(
    st.just(Started(SpeechOptions())),
    st.integers(0, 40_000).map(lambda n: AudioReceived(bytes(2 * n))),
    st.just(FinalizeRequested()),
    st.just(KeptAlive()),
    st.just(StopRequested()),
    st.just(Ticked()),
    st.builds(QualityChanged, st.integers(0, 5), st.just("busy_ingress")),
    st.just(VadAttached()),
    st.just(TranscriberAttached()),
    st.tuples(st.integers(0, 9), st.booleans()).map(
        lambda t: Hypothesis(0, t[0], 100, HELLO, t[1])
    ),
    st.just("judge"),
    st.just(ClientVanished()),
)


class Ear:
    """A VAD that is random but lawful: it says where it is, and transitions follow each other."""

    def __init__(self, flips: list[int]) -> None:
        self.flips = flips
        self.heard = self.at = 0
        self.speaking = False

    def judge(self) -> VadResult:
        transitions = []
        while self.flips and self.at + self.flips[0] < self.heard:
            self.at += self.flips.pop(0)
            self.speaking = not self.speaking
            transitions.append(Transition(Edge.START if self.speaking else Edge.END, self.at))
        self.at = max(self.at, self.heard)
        return VadResult(0, self.heard, tuple(transitions), self.speaking)


@settings(max_examples=300)
@given(st.lists(facts, max_size=60), st.lists(st.integers(320, 60_000), max_size=20))
def test_random_facts_break_nothing_and_account_for_all_audio(
    sequence: list[Any], flips: list[int]
) -> None:
    session, ear = new(max_session_s=6e5, max_silence_s=6e5), Ear(flips)
    fed: dict[int, int] = {}
    spans: list[int] = []
    for now, fact in enumerate(sequence):
        closed = session.state is SessionState.CLOSED
        try:
            orders = session.on(ear.judge() if fact == "judge" else fact, float(now))
        except ProtocolViolation:
            continue
        assert not (closed and orders), "no output for a dead session"
        for order in orders:
            if isinstance(order, DetectSpeech) and order.resume is None:
                ear.heard += len(order.pcm) // 2
            if isinstance(order, Recognize) and fact != TranscriberAttached():
                fed[order.utterance] = fed.get(order.utterance, 0) + len(order.pcm) // 2
            if isinstance(order, TranscriptUpdate) and order.final:
                spans.append(order.until - order.start)
                assert spans[-1] == fed[order.utterance], "audio in, audio accounted for"


# How an utterance goes, for those who hold a conversation.

EAGER = Listening(Endpoint(pause_ms=160, confirm_ms=140))


def told(session: Session, *facts: Any) -> list[Any]:
    return [order for fact in facts for order in session.on(fact, 1.0)]


def eager() -> Session:
    session = Session(Limits(), EAGER, 0.0)
    session.on(TranscriberAttached(), 0.0)
    told(session, AudioReceived(SECOND), edges(0.5, (Edge.START, 0.1)))
    return session


def edges(until_s: float, *changes: tuple[Edge, float]) -> VadResult:
    transitions = tuple(Transition(edge, int(at * 16_000)) for edge, at in changes)
    return VadResult(0, int(until_s * 16_000), transitions, True)


def names(orders: list[Any]) -> list[str]:
    return [type(order).__name__ for order in orders]


def test_at_a_pause_the_final_is_asked_for_and_told_at_the_end() -> None:
    session = eager()
    (ended,) = told(session, edges(0.6, (Edge.PAUSE, 0.6)))[-1:]
    assert ended == Recognize(0, b"", True, None)
    assert names(told(session, edges(0.7))) == [], "what follows is silence, so far"
    assert told(session, final(0, 0.6)) == [EagerFinal(0, HELLO)]
    orders = told(session, edges(0.95, (Edge.END, 0.94)))
    assert names(orders) == ["SpeechBoundary", "UtteranceEnded", "TranscriptUpdate"]
    assert orders[1] == UtteranceEnded(0, 15_040, 7_040) and orders[2].final


def test_when_the_person_goes_on_all_is_heard_again() -> None:
    session = eager()
    told(session, edges(0.6, (Edge.PAUSE, 0.6)), final(0, 0.6))
    orders = told(session, edges(0.8, (Edge.RESUME, 0.7)))
    assert orders[0] == TurnResumed(0)
    assert orders[1].utterance == 1 and len(orders[1].pcm) == 0.7 * 32_000
    assert told(session, final(0, 0.7)) == [], "of an attempt that is over"
    assert names(told(session, edges(0.9, (Edge.END, 0.9)))) == [
        "Recognize",
        "SpeechBoundary",
        "Recognize",
        "UtteranceEnded",
    ]
    assert told(session, final(1, 0.9))[0].utterance == 0


def test_a_transcriber_lost_in_a_pause_is_told_all_again() -> None:
    session = eager()
    told(session, edges(0.6, (Edge.PAUSE, 0.6)))
    (again,) = told(session, TranscriberAttached())
    assert again.ended and len(again.pcm) == 0.6 * 32_000
    told(session, final(0, 0.6))
    assert told(session, TranscriberAttached()) == [], "it has answered"


def test_a_vad_lost_in_a_pause_loses_no_words_after_it() -> None:
    """The next one may not know of the pause, and then it does not tell that it is over."""
    session = eager()
    told(session, edges(0.6, (Edge.PAUSE, 0.6)), final(0, 0.6))
    orders = told(session, VadAttached())
    assert names(orders) == ["TurnResumed", "Recognize", "DetectSpeech"]
    assert orders[1].utterance == 1 and len(orders[1].pcm) == 0.6 * 32_000
    ended = told(session, edges(0.9, (Edge.END, 0.9)))
    assert [it.utterance for it in ended if isinstance(it, Recognize)] == [1, 1]


def test_what_goes_on_after_a_cut_is_no_cough() -> None:
    session = eager()
    told(session, edges(0.6, (Edge.CONFIRMED, 0.3)), FinalizeRequested())
    told(session, edges(1.0))
    orders = told(session, AudioReceived(SECOND), edges(1.5))
    assert [n for n in names(orders) if n != "DetectSpeech"][:2] == [
        "UtteranceOpened",
        "SpeechConfirmed",
    ]


def test_push_to_talk_needs_no_vad() -> None:
    session = Session(Limits(), Listening(manual=True), 0.0)
    orders = told(session, AudioReceived(SECOND), AudioReceived(SECOND))
    assert names(orders) == ["UtteranceOpened", "Recognize", "Recognize"]
    assert names(told(session, FinalizeRequested(True))) == ["Recognize", "UtteranceEnded"]
    assert names(told(session, FinalizeRequested(True)))[0] == "UtteranceOpened", (
        "empty, but answered"
    )


def test_clearing_drops_the_utterance_at_hand() -> None:
    session = Session(Limits(), Listening(manual=True), 0.0)
    told(session, AudioReceived(SECOND))
    assert names(told(session, Cleared())) == ["Recognize", "UtteranceDropped"]
    assert told(session, final(0)) == [] and session.ahead == 0


def test_who_says_where_utterances_end_may_change() -> None:
    session = Session(Limits(), Listening(), 0.0)
    told(session, AudioReceived(SECOND))
    manual = Reconfigured(SpeechOptions(), Listening(manual=True))
    assert told(session, manual) == [] and session.ahead == 0
    told(session, AudioReceived(SECOND))
    back = told(session, Reconfigured(SpeechOptions(), EAGER))
    assert names(back) == ["Recognize", "UtteranceEnded", "DetectSpeech"]
    assert back[-1].resume == Resume(32_000, False, EAGER.endpoint, 32_000)
    assert told(session, edges(1.0, (Edge.START, 0.5))) == [], "of before"


def test_a_drain_is_announced_and_ends_with_the_words_of_all_audio() -> None:
    session = new()
    play(session, AudioReceived(SECOND), judged(1, (True, 0.0)))
    (notice,) = play(session, DrainStarted(30))
    assert notice.deadline_ms == 30_000 and session.state is SessionState.ACTIVE
    play(session, AudioReceived(SECOND))
    assert play(session, DrainEnded()) == [], "a second of audio is not judged yet"
    assert play(session, AudioReceived(SECOND)) == [], "no more is accepted"
    play(session, judged(2))
    orders = play(session, final(0, 2))
    assert orders[0].final and orders[-1].code == 1012 and orders[-1].metrics.audio_ms == 2000
    assert not codes(orders)


def test_a_session_that_is_closing_goes_on_closing_in_a_drain() -> None:
    session = new()
    play(session, AudioReceived(SECOND), StopRequested())
    assert play(session, DrainStarted(30), DrainEnded()) == []
    (close,) = play(session, judged(1, voiced=False))
    assert close.code == 1000
