"""A session broken anywhere and resumed: the words of the unbroken one, in their places, once.

The VAD's ear and the recogniser are fakes that see what is in the audio: the samples of a frame are
its word's number, 0 is silence. Endpointing is the real one.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.interfaces import (
    RATE,
    Edge,
    Hypothesis,
    Resume,
    SpeechOptions,
    Transition,
    VadResult,
    Word,
)
from deployments.vad import FRAME_BYTES, FRAME_SAMPLES, Endpointing, endpointing
from serve_app.config import Limits
from serve_app.live.events import (
    AudioReceived,
    Close,
    DetectSpeech,
    ErrorReport,
    FinalizeRequested,
    KeptAlive,
    Listening,
    ProgressReport,
    Recognize,
    Resumable,
    Resumed,
    StopRequested,
    Ticked,
    TranscriberAttached,
    TranscriptUpdate,
    UtteranceFailed,
    VadAttached,
)
from serve_app.live.resume_point import ResumePoint
from serve_app.live.session import Session

CHUNK_BYTES = 5 * FRAME_BYTES
Final = tuple[int, int, str]
"""A word: its utterance, its place in the session, and what it says."""


class FakeVad:
    """Every frame that is not zero is voice."""

    def __init__(self) -> None:
        self.endpointing: Endpointing | None = None
        self.rest = b""

    def detect(self, order: DetectSpeech) -> VadResult:
        if order.resume:
            self.endpointing, self.rest = endpointing(order.resume), b""
        assert self.endpointing
        pcm = self.rest + order.pcm
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        self.rest = pcm[whole:]
        flags = [any(pcm[at : at + FRAME_BYTES]) for at in range(0, whole, FRAME_BYTES)]
        transitions = tuple(t for flag in flags if (t := self.endpointing.on(flag)))
        until = self.endpointing.sample + len(self.rest) // 2
        return VadResult(0, until, transitions, True in flags)


class FakeTranscriber:
    """Says the numbers that are in the audio, `lag` chunks after an utterance has ended."""

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.now = 0
        self.audio: dict[int, bytes] = {}
        self.due: list[tuple[int, Hypothesis]] = []

    def take(self, order: Recognize) -> None:
        self.audio[order.utterance] = self.audio.get(order.utterance, b"") + order.pcm
        if order.ended:
            pcm = self.audio.pop(order.utterance)
            found = Hypothesis(0, order.utterance, len(pcm) // 2, heard(pcm), True)
            self.due.append((self.now + self.lag, found))

    def ready(self, everything: bool = False) -> list[Hypothesis]:
        self.now += 1
        out = [it for at, it in self.due if everything or at <= self.now]
        self.due = [(at, it) for at, it in self.due if not everything and at > self.now]
        return out


def heard(pcm: bytes) -> tuple[Word, ...]:
    samples = [int.from_bytes(pcm[at : at + 2], "little") for at in range(0, len(pcm), 2)]
    begins = [0, *(at + 1 for at, (a, b) in enumerate(pairwise(samples)) if a != b)]
    return tuple(Word(str(samples[at]), at, at, 1.0) for at in begins if samples and samples[at])


@dataclass
class Run:
    """One connection."""

    limits: Limits
    lag: int
    point: ResumePoint = ResumePoint()  # noqa: RUF009
    finals: list[Final] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    closed: Close | None = None

    def __post_init__(self) -> None:
        self.session = Session(self.limits, Listening(), 0.0)
        self.vad, self.transcriber = FakeVad(), FakeTranscriber(self.lag)
        self.feed(VadAttached())
        self.feed(TranscriberAttached())

    def feed(self, fact: Any) -> None:
        for order in self.session.on(fact, 1.0):
            match order:
                case DetectSpeech():
                    self.feed(self.vad.detect(order))
                case Recognize():
                    self.transcriber.take(order)
                case TranscriptUpdate(final=True):
                    self.on_final(order)
                case Resumable(point):
                    self.on_point(point)
                case ProgressReport(sample):
                    self.progress.append(sample)
                case Close():
                    self.closed = order
                case ErrorReport(error):
                    raise AssertionError(error.code)

    def on_final(self, update: TranscriptUpdate) -> None:
        self.finals += [(update.utterance, update.start + w.start, w.text) for w in update.words]
        assert update.point and update.point.audio == update.until
        self.on_point(update.point)

    def on_point(self, point: ResumePoint) -> None:
        assert point.audio >= self.point.audio, "it never moves back"
        assert point.send_from >= self.point.send_from, "the client has no audio before that"
        assert point.send_from <= point.listen <= point.audio
        self.point = point

    def play(self, pcm: bytes, begin: int, end: int, finalize: set[int], chunk: int) -> None:
        """Samples `begin` to `end` of the session, with its commands in their places."""
        at = begin * 2
        while at < end * 2:
            stop = min([at + chunk, end * 2, *(2 * it for it in finalize if 2 * it > at)])
            self.feed(AudioReceived(pcm[at:stop]))
            self.feed(KeptAlive())
            if stop // 2 in finalize:
                self.feed(FinalizeRequested())
            for hypothesis in self.transcriber.ready():
                self.feed(hypothesis)
            at = stop

    def stop(self) -> None:
        self.feed(StopRequested())
        for _ in range(3):
            for hypothesis in self.transcriber.ready(everything=True):
                self.feed(hypothesis)
        assert self.closed


@dataclass
class Story:
    pcm: bytes
    finalize: set[int] = field(default_factory=set)
    limits: Limits = Limits(max_silence_s=1e5, max_session_s=1e5)  # noqa: RUF009
    lag: int = 2
    chunk: int = CHUNK_BYTES

    @property
    def samples(self) -> int:
        return len(self.pcm) // 2

    def unbroken(self) -> Run:
        run = Run(self.limits, self.lag)
        run.play(self.pcm, 0, self.samples, self.finalize, self.chunk)
        run.stop()
        return run

    def broken(self, *breaks: int) -> Run:
        """Connections end after these samples were sent; each time another server goes on."""
        run, finals = Run(self.limits, self.lag), []
        begin = 0
        for end in breaks:
            if end > begin:
                run.play(self.pcm, begin, end, self.finalize, self.chunk)
            finals += run.finals
            point = run.point
            run = Run(self.limits, self.lag, point)
            run.feed(Resumed(SpeechOptions(), point, 0.0))
            begin = point.listen
        run.play(self.pcm, begin, self.samples, self.finalize, self.chunk)
        run.stop()
        return replace(run, finals=finals + run.finals, progress=run.progress, closed=run.closed)


def story(*frames: int, **more: Any) -> Story:
    """Silence and speech in turn, in frames; five frames a word."""
    pcm, word = b"", 0
    for number, count in enumerate(frames):
        for frame in range(count):
            word += number % 2 and frame % 5 == 0
            pcm += (word if number % 2 else 0).to_bytes(2, "little") * FRAME_SAMPLES
    return Story(pcm, **more)


TALK = (40, 100, 30, 60, 26, 12, 300, 4, 2, 50, 40)


@pytest.mark.parametrize("lag", [0, 3, 30, 80])
def test_broken_anywhere_it_says_what_the_unbroken_one_says(lag: int) -> None:
    whole = story(*TALK, lag=lag)
    said = whole.unbroken()
    assert len({utterance for utterance, _, _ in said.finals}) == 4
    for end in range(0, whole.samples, CHUNK_BYTES // 2):
        run = whole.broken(end)
        assert run.finals == said.finals
        assert run.closed and said.closed
        ours, theirs = run.closed.metrics, said.closed.metrics
        assert (ours.words, ours.speech_ms, ours.finals, ours.utterances, ours.audio_ms) == (
            (theirs.words, theirs.speech_ms, theirs.finals, theirs.utterances, theirs.audio_ms)
        )


frames_of_speech = st.lists(st.integers(1, 120), min_size=2, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    frames_of_speech,
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(0, 20),
    st.sampled_from([FRAME_BYTES, CHUNK_BYTES, 1234, 32_000]),
    st.sampled_from([20.0, 1.37]),
    st.lists(st.floats(0, 1), max_size=2),
)
def test_no_word_is_lost_or_doubled(
    frames: list[int],
    breaks: list[float],
    lag: int,
    chunk: int,
    longest_s: float,
    finalize: list[float],
) -> None:
    """However often it breaks, with utterances that are cut by their length or by the client."""
    limits = Limits(max_silence_s=1e5, max_session_s=1e5, max_utterance_s=longest_s)
    whole = story(*frames, limits=limits, lag=lag, chunk=chunk)
    whole.finalize = {int(share * whole.samples) for share in finalize}
    said = whole.unbroken()
    run = whole.broken(*(int(share * whole.samples) for share in sorted(breaks)))
    assert [word[1:] for word in run.finals] == [word[1:] for word in said.finals]


def test_a_long_silence_needs_no_audio_from_its_beginning() -> None:
    whole = story(1000)
    run = Run(whole.limits, 0)
    run.play(whole.pcm, 0, whole.samples, set(), CHUNK_BYTES)
    assert run.point.audio == whole.samples == 20 * RATE
    assert run.point.send_from == 19 * RATE


def test_the_audio_to_keep_begins_at_a_whole_second_before_what_the_vad_hears() -> None:
    for listen in (0, 1600, 16_000, 19_199, 19_200, 400_000):
        send_from = ResumePoint(listen=listen).send_from
        assert send_from % RATE == 0
        assert send_from == 0 or 3_200 <= listen - send_from < RATE + 3_200


def test_what_was_dealt_with_never_moves_back() -> None:
    whole = story(*TALK, lag=8)
    said = whole.unbroken().progress
    assert said == sorted(said)
    run = whole.broken(130 * FRAME_SAMPLES)
    assert run.progress == sorted(run.progress)


def test_a_failed_utterance_can_be_resumed_after_as_well() -> None:
    session = Session(Limits(), Listening(), 0.0)
    session.on(AudioReceived(bytes(64_000)), 1.0)
    edges = Transition(Edge.START, 3_200), Transition(Edge.END, 32_000)
    session.on(VadResult(0, 32_000, edges, True), 1.0)
    (failed,) = session.on(Hypothesis(0, 0, 100, (), True, 0, "it broke"), 1.0)
    assert isinstance(failed, UtteranceFailed) and failed.point
    assert (failed.point.audio, failed.point.utterance, failed.point.failures) == (32_000, 1, 1)


def test_a_resumed_session_is_as_old_as_it_was() -> None:
    session = Session(Limits(max_session_s=100), Listening(), 0.0)
    session.on(Resumed(SpeechOptions(), ResumePoint(), 95.0), 0.0)
    assert not session.on(Ticked(), 1.0)
    (error, *_) = session.on(Ticked(), 6.0)
    assert isinstance(error, ErrorReport) and error.error.code == "session_too_long"


def test_a_session_without_audio_gets_a_fresh_token_from_time_to_time() -> None:
    session = Session(Limits(idle_timeout_s=1e4), Listening(), 0.0)
    assert not session.on(Ticked(), 59.0)
    assert session.on(Ticked(), 61.0) == [Resumable(ResumePoint())]
    assert not session.on(Ticked(), 62.0)


def test_a_vad_that_is_lost_meanwhile_is_told_again_what_not_to_report() -> None:
    session = Session(Limits(), Listening(), 0.0)
    point = ResumePoint(audio=64_000, listen=16_000, speaking=True)
    (order,) = session.on(Resumed(SpeechOptions(), point, 0.0), 0.0)
    assert isinstance(order, DetectSpeech)
    assert order.resume == Resume(16_000, True, Listening().endpoint, 64_000)
    session.on(AudioReceived(bytes(32_000)), 0.0)
    session.on(VadResult(0, 24_000, (), True), 0.0)
    (again,) = session.on(VadAttached(), 0.0)
    assert isinstance(again, DetectSpeech)
    assert again.resume == Resume(18_240, True, Listening().endpoint, 64_000)
    assert len(again.pcm) == 16_000 + 2 * (24_000 - 18_240)
