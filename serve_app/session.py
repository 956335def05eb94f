"""A live transcription session as a state machine. Pure: it awaits nothing and reads no clock.

What happened goes into `Session.on` with the time; what to do comes out. Audio is the clock:
positions are samples at 16 kHz since the session began. All audio goes to the VAD first; what
the VAD calls speech goes to the transcriber, so an utterance holds the same samples however they
arrived. Whatever a model replica has not answered for is kept, so that another can take over:
`VadSeated` and `TranscriberSeated` say that a replica knows nothing yet of this session.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    RATE,
    Hypothesis,
    Judged,
    SpeechOptions,
    Word,
)
from serve_app.config import Limits
from serve_app.errors import ClientError

FRAME_SAMPLES = RATE // 50
"""The VAD hears frames of 20 ms; a replica begins at the border of one."""

NORMAL_CLOSURE = 1000

START_NOT_FIRST = ClientError("start_not_first", "start comes once, before any audio")
AUDIO_AFTER_STOP = ClientError("audio_after_stop", "audio came after stop")


class State(Enum):
    CREATED = auto()
    ACTIVE = auto()
    CLOSING = auto()
    CLOSED = auto()


# What happened.


@dataclass(frozen=True, slots=True)
class Started:
    options: SpeechOptions


@dataclass(frozen=True, slots=True)
class AudioReceived:
    pcm: bytes


@dataclass(frozen=True, slots=True)
class KeptAlive:
    pass


@dataclass(frozen=True, slots=True)
class FinalizeRequested:
    pass


@dataclass(frozen=True, slots=True)
class StopRequested:
    pass


@dataclass(frozen=True, slots=True)
class ClientErred:
    """The client did something wrong; the session ends if the error has a close code."""

    error: ClientError


@dataclass(frozen=True, slots=True)
class ClientVanished:
    pass


@dataclass(frozen=True, slots=True)
class VadSeated:
    pass


@dataclass(frozen=True, slots=True)
class TranscriberSeated:
    pass


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed; comes about once a second."""


Fact = (
    Started
    | AudioReceived
    | KeptAlive
    | FinalizeRequested
    | StopRequested
    | ClientErred
    | ClientVanished
    | VadSeated
    | TranscriberSeated
    | Ticked
    | Judged
    | Hypothesis
)


# What to do.


@dataclass(frozen=True, slots=True)
class Judge:
    """Give audio to the VAD; see `interfaces.Unjudged`."""

    pcm: bytes
    resume: tuple[int, bool] | None


@dataclass(frozen=True, slots=True)
class Recognize:
    """Give audio to the transcriber; see `interfaces.Speech`."""

    utterance: int
    pcm: bytes
    ended: bool
    options: SpeechOptions | None


@dataclass(frozen=True, slots=True)
class TellSpeech:
    """Speech started or ended at a sample."""

    started: bool
    sample: int


@dataclass(frozen=True, slots=True)
class TellTranscript:
    """Words of one utterance, placed in the session."""

    utterance: int
    final: bool
    start: int
    until: int
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class TellProgress:
    """All audio up to `sample` has been dealt with; answers `KeptAlive`."""

    sample: int


@dataclass(frozen=True, slots=True)
class TellError:
    error: ClientError


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a session came to. Times in ms."""

    audio_ms: int = 0
    speech_ms: int = 0
    utterances: int = 0
    words: int = 0
    partials: int = 0
    finals: int = 0
    failures: int = 0
    errors: int = 0
    replays: int = 0
    final_latency_ms_avg: float = 0.0
    final_latency_ms_max: float = 0.0


@dataclass(frozen=True, slots=True)
class Close:
    """Tell the metrics, then close with `code`; the session is over."""

    code: int
    metrics: Metrics


Event = TellSpeech | TellTranscript | TellProgress | TellError | Close
"""What the client gets to know."""

Order = Judge | Recognize | Event


class ProtocolViolation(Exception):
    """Something happened that cannot happen in this state."""


@dataclass(slots=True)
class _Utterance:
    """Speech whose final has not come: its audio is kept until then."""

    number: int
    start: int
    pcm: list[bytes] = field(default_factory=list)
    length: int = 0
    recognized: int = 0
    ended_at: float | None = None
    words: list[Word] = field(default_factory=list)
    final: Hypothesis | None = None
    """Has come, but waits for the finals of earlier utterances."""

    def append(self, pcm: bytes) -> None:
        self.pcm.append(pcm)
        self.length += len(pcm) // BYTES_PER_SAMPLE


@dataclass(slots=True)
class _Tally:
    speech: int = 0
    words: int = 0
    partials: int = 0
    finals: int = 0
    failures: int = 0
    errors: int = 0
    seatings: int = 0
    latency_sum: float = 0.0
    latency_max: float = 0.0


class Session:
    """`on(fact, now)` with `now` in seconds of any clock that never goes back."""

    __slots__ = (
        "_ahead",
        "_close_code",
        "_closing_since",
        "_created",
        "_finalize_at",
        "_heard",
        "_judged",
        "_keep",
        "_limits",
        "_number",
        "_options",
        "_pending",
        "_prefix",
        "_received",
        "_running",
        "_speaking",
        "_spoken",
        "_tail",
        "_tally",
        "_unjudged",
        "_utterance_end",
        "_voiced",
        "state",
    )

    def __init__(self, limits: Limits, prefix_ms: int, min_speech_ms: int, now: float) -> None:
        self.state = State.CREATED
        self._limits = limits
        self._options = SpeechOptions()
        self._prefix = prefix_ms * RATE // 1000
        self._keep = (prefix_ms + min_speech_ms) * RATE // 1000 * BYTES_PER_SAMPLE
        """Bytes kept while nobody speaks: speech is noticed only after it began."""
        self._ahead = int(limits.max_audio_ahead_s * RATE)
        self._created = self._heard = now
        self._closing_since = now
        self._close_code = NORMAL_CLOSURE
        self._received = self._judged = self._spoken = self._utterance_end = 0
        self._unjudged: list[bytes] = []
        self._tail = b""
        """The last audio judged, up to `_judged`, while nobody speaks."""
        self._speaking = self._voiced = False
        self._finalize_at: int | None = None
        self._number = 0
        self._running: _Utterance | None = None
        self._pending: dict[int, _Utterance] = {}
        self._tally = _Tally()

    @property
    def position(self) -> int:
        """The sample up to which everything has been dealt with."""
        if not self._pending:
            return self._judged
        oldest = next(iter(self._pending.values()))
        return oldest.start + oldest.recognized

    @property
    def ahead(self) -> int:
        """Samples received that have not been dealt with."""
        return self._received - self.position

    def on(self, fact: Fact, now: float) -> list[Order]:
        if self.state is State.CLOSED:
            return []
        match fact:
            case AudioReceived(pcm):
                self._heard = now
                return self._audio(pcm, now)
            case Judged():
                return self._on_judged(fact, now)
            case Hypothesis():
                return self._on_hypothesis(fact, now)
            case Ticked():
                return self._on_time(now)
            case VadSeated():
                return self._reseat_vad()
            case TranscriberSeated():
                return self._reseat_transcriber()
            case ClientVanished():
                self.state = State.CLOSED
                return []
        return self._on_client(fact, now)

    def _on_client(self, fact: Fact, now: float) -> list[Order]:
        """What the client said, audio aside."""
        self._heard = now
        match self.state, fact:
            case State.CREATED, Started(options):
                self.state = State.ACTIVE
                self._options = options
                return []
            case _, Started():
                return self._err(START_NOT_FIRST, now)
            case _, KeptAlive():
                return [TellProgress(self.position)]
            case State.CLOSING, (FinalizeRequested() | StopRequested()):
                return []
            case _, FinalizeRequested():
                return self._finalize(now)
            case _, StopRequested():
                return self._begin_closing(NORMAL_CLOSURE, now)
            case _, ClientErred(error):
                return self._err(error, now)
        raise ProtocolViolation(f"{fact!r} in {self.state.name}")

    # Audio in.

    def _audio(self, pcm: bytes, now: float) -> list[Order]:
        if self.state is State.CLOSING:
            if self._close_code != NORMAL_CLOSURE:
                return []
            return self._err(AUDIO_AFTER_STOP, now)
        samples = len(pcm) // BYTES_PER_SAMPLE
        if not samples:
            return []
        if self.ahead + samples > self._ahead:
            return self._err(self._overrun(), now)
        self.state = State.ACTIVE
        self._received += samples
        self._unjudged.append(pcm)
        if self._received > self._limits.max_session_s * RATE:
            return [Judge(pcm, None), *self._err(self._too_long(), now)]
        return [Judge(pcm, None)]

    def _reseat_vad(self) -> list[Order]:
        """A new replica gets where we are, from the border of a frame, and all that follows."""
        self._tally.seatings += 1
        over = self._judged % FRAME_SAMPLES
        begun = self._latest()[-over * BYTES_PER_SAMPLE :] if over else b""
        resume = (self._judged - over, self._speaking)
        return [Judge(begun + b"".join(self._unjudged), resume)]

    def _latest(self) -> bytes:
        """Audio that ends at `_judged`: at least a frame of it."""
        return b"".join(self._running.pcm[-2:]) if self._running else self._tail

    # What the VAD said.

    def _on_judged(self, judged: Judged, now: float) -> list[Order]:
        orders: list[Order] = []
        self._voiced = judged.voiced
        for transition in judged.transitions:
            self._advance(transition.sample, orders, now)
            if transition.speaking:
                self._start_speech(transition.sample, orders)
            else:
                self._end_speech(transition.sample, orders, now)
        self._advance(judged.until, orders, now)
        if self.state is State.CLOSING:
            orders += self._finish(now)
        elif not self._speaking and self._silence() > self._limits.max_silence_s * RATE:
            orders += self._err(self._silent(), now)
        return orders

    def _advance(self, until: int, orders: list[Order], now: float) -> None:
        """Take judged audio up to sample `until`: into an utterance while someone speaks."""
        while self._judged < until:
            cut = self._cut_at()
            self._take(self._pop_unjudged(min(until, cut)), orders)
            if self._running and self._judged == cut:
                self._end_utterance(orders, now)

    def _take(self, pcm: bytes, orders: list[Order]) -> None:
        self._judged += len(pcm) // BYTES_PER_SAMPLE
        if self._running:
            self._running.append(pcm)
            orders.append(Recognize(self._running.number, pcm, False, None))
        elif self._speaking and self._voiced:  # goes on after a finalize or a cut
            self._open_utterance(self._tail + pcm, orders)
        else:
            self._tail = (self._tail + pcm)[-self._keep :]

    def _cut_at(self) -> int:
        """Where the running utterance must end: its greatest length, or a finalize."""
        start = self._running.start if self._running else self._judged
        longest = start + int(self._limits.max_utterance_s * RATE)
        if self._finalize_at is None or self._finalize_at <= self._judged:
            return longest
        return min(longest, self._finalize_at)

    def _pop_unjudged(self, until: int) -> bytes:
        """Take the audio from `_judged` to `until` out of `_unjudged`."""
        wanted = (until - self._judged) * BYTES_PER_SAMPLE
        first = self._unjudged[0]
        if len(first) == wanted:
            return self._unjudged.pop(0)
        whole = b"".join(self._unjudged)
        rest = whole[wanted:]
        self._unjudged = [rest] if rest else []
        return whole[:wanted]

    def _start_speech(self, sample: int, orders: list[Order]) -> None:
        self._speaking = self._voiced = True
        orders.append(TellSpeech(True, sample))
        start = max(sample - self._prefix, self._utterance_end)
        back = min((self._judged - start) * BYTES_PER_SAMPLE, len(self._tail))
        self._tail = self._tail[len(self._tail) - back :]
        if self._judged > sample:  # speech began in audio that was judged before
            self._open_utterance(self._tail, orders)

    def _end_speech(self, sample: int, orders: list[Order], now: float) -> None:
        self._speaking = False
        self._spoken = sample
        orders.append(TellSpeech(False, sample))
        if self._running:
            self._end_utterance(orders, now)

    # Utterances.

    def _open_utterance(self, pcm: bytes, orders: list[Order]) -> None:
        """Begin an utterance with the audio up to `_judged`."""
        utterance = _Utterance(self._number, self._judged - len(pcm) // BYTES_PER_SAMPLE)
        self._number += 1
        self._tail = b""
        utterance.append(pcm)
        self._running = self._pending[utterance.number] = utterance
        orders.append(Recognize(utterance.number, pcm, False, self._options))

    def _end_utterance(self, orders: list[Order], now: float) -> None:
        utterance = self._running
        assert utterance
        self._running = None
        self._finalize_at = None
        self._utterance_end = utterance.start + utterance.length
        self._tally.speech += utterance.length
        utterance.ended_at = now
        orders.append(Recognize(utterance.number, b"", True, None))

    def _reseat_transcriber(self) -> list[Order]:
        """A new replica gets every utterance whose final has not come, from its beginning."""
        self._tally.seatings += 1
        return [
            Recognize(u.number, b"".join(u.pcm), u.ended_at is not None, self._options)
            for u in self._pending.values()
        ]

    def _on_hypothesis(self, hypothesis: Hypothesis, now: float) -> list[Order]:
        utterance = self._pending.get(hypothesis.utterance)
        if utterance is None or utterance.final:
            return []
        utterance.recognized = max(utterance.recognized, hypothesis.until)
        utterance.words[hypothesis.keep :] = hypothesis.words
        if hypothesis.final:
            utterance.final = hypothesis
            return self._tell_finals(now)
        self._tally.partials += 1
        if not self._options.interim_results:
            return []
        return [self._transcript(utterance, False, utterance.start + utterance.recognized)]

    def _tell_finals(self, now: float) -> list[Order]:
        """Finals in the order of speech, though engines may finish in another."""
        orders: list[Order] = []
        while self._pending:
            utterance = next(iter(self._pending.values()))
            if utterance.final is None:
                return orders
            del self._pending[utterance.number]
            orders.append(self._tell_final(utterance, utterance.final, now))
        return orders + (self._finish(now) if self.state is State.CLOSING else [])

    def _tell_final(self, utterance: _Utterance, final: Hypothesis, now: float) -> Order:
        self._count_final(utterance, now)
        if final.failure:
            self._tally.failures += 1
            return TellError(self._failed(utterance, final.failure))
        return self._transcript(utterance, True, utterance.start + utterance.length)

    def _count_final(self, utterance: _Utterance, now: float) -> None:
        latency = now - (utterance.ended_at if utterance.ended_at is not None else now)
        self._tally.finals += 1
        self._tally.words += len(utterance.words)
        self._tally.latency_sum += latency
        self._tally.latency_max = max(self._tally.latency_max, latency)

    def _transcript(self, utterance: _Utterance, final: bool, until: int) -> TellTranscript:
        return TellTranscript(
            utterance.number, final, utterance.start, until, tuple(utterance.words)
        )

    # The end.

    def _finalize(self, now: float) -> list[Order]:
        """End the running utterance after the audio received so far."""
        orders: list[Order] = []
        if self._received > self._judged:
            self._finalize_at = self._received
        elif self._running:
            self._end_utterance(orders, now)
        return orders

    def _begin_closing(self, code: int, now: float) -> list[Order]:
        self.state = State.CLOSING
        self._close_code = code
        self._closing_since = now
        return self._finish(now)

    def _finish(self, now: float) -> list[Order]:
        """Close if all audio is judged and all finals are in; else wait for them."""
        orders: list[Order] = []
        if self._judged < self._received:
            return orders
        if self._running:
            self._end_utterance(orders, now)
        if not self._pending:
            orders.append(self._close(self._close_code))
        return orders

    def _close(self, code: int) -> Close:
        self.state = State.CLOSED
        return Close(code, self.metrics())

    def _err(self, error: ClientError, now: float) -> list[Order]:
        self._tally.errors += 1
        orders: list[Order] = [TellError(error)]
        if error.close is not None and self.state is not State.CLOSING:
            orders += self._begin_closing(error.close, now)
        return orders

    def _on_time(self, now: float) -> list[Order]:
        limits = self._limits
        if self.state is State.CLOSING:
            return self._give_up() if now - self._closing_since > limits.closing_timeout_s else []
        if now - self._heard > limits.idle_timeout_s:
            return self._err(self._idle(), now)
        if now - self._created > limits.max_session_s:
            return self._err(self._too_long(), now)
        return []

    def _give_up(self) -> list[Order]:
        error = ClientError(
            "engine_timeout",
            f"the last finals did not come within {self._limits.closing_timeout_s:g} s",
        )
        self._tally.errors += 1
        return [TellError(error), self._close(1011)]

    def metrics(self) -> Metrics:
        tally = self._tally
        ended = max(1, tally.finals)
        return Metrics(
            audio_ms=self._received * 1000 // RATE,
            speech_ms=tally.speech * 1000 // RATE,
            utterances=self._number,
            words=tally.words,
            partials=tally.partials,
            finals=tally.finals,
            failures=tally.failures,
            errors=tally.errors,
            replays=max(0, tally.seatings - 2),
            final_latency_ms_avg=round(tally.latency_sum / ended * 1000, 1),
            final_latency_ms_max=round(tally.latency_max * 1000, 1),
        )

    def _silence(self) -> int:
        return self._judged - self._spoken

    # What is said of limits.

    def _overrun(self) -> ClientError:
        bound = self._limits.max_audio_ahead_s
        return ClientError(
            "audio_overrun",
            f"more than {bound:g} s of audio wait to be recognised: send it no faster than its "
            "results come",
        )

    def _too_long(self) -> ClientError:
        bound = self._limits.max_session_s
        return ClientError("session_too_long", f"a session lasts at most {bound:g} s")

    def _silent(self) -> ClientError:
        bound = self._limits.max_silence_s
        return ClientError("silence_timeout", f"no speech in {bound:g} s of audio")

    def _idle(self) -> ClientError:
        bound = self._limits.idle_timeout_s
        return ClientError(
            "idle_timeout", f"no message for {bound:g} s: send keepalive while there is no audio"
        )

    def _failed(self, utterance: _Utterance, reason: str) -> ClientError:
        return ClientError("utterance_failed", f"utterance {utterance.number}: {reason}")
