"""A live transcription session as a state machine. Pure: it awaits nothing and reads no clock.

What happened goes into `Session.on` with the time; what to do comes out. Audio is the clock:
positions are samples at 16 kHz since the session began. All audio goes to the VAD first; what
the VAD calls speech goes to the transcriber, so an utterance holds the same samples however they
arrived. Whatever a model replica has not answered for is kept, so that another can take over:
`VadAttached` and `TranscriberAttached` say that a replica knows nothing yet of this session.

Where the endpoint has a pause, the recogniser is asked for its final words at the pause already:
if the person goes on, all of the utterance is given to it again as another attempt; if not, the
final is there when the end of speech is confirmed.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    RATE,
    Edge,
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
    EagerFinal,
    ErrorReport,
    Fact,
    FinalizeRequested,
    KeptAlive,
    Listening,
    Order,
    ProgressReport,
    Quarantined,
    Recognize,
    Reconfigured,
    SessionMetrics,
    SpeechBoundary,
    SpeechConfirmed,
    Started,
    StopRequested,
    Ticked,
    TranscriberAttached,
    TranscriptUpdate,
    TurnResumed,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceFailed,
    UtteranceOpened,
    VadAttached,
)

FRAME_SAMPLES = RATE // 50
"""The VAD hears frames of 20 ms; a replica begins at the border of one."""

NORMAL_CLOSURE = 1000


class SessionState(Enum):
    CREATED = auto()
    ACTIVE = auto()
    CLOSING = auto()
    CLOSED = auto()


# What happened.


# What to do.


@dataclass(slots=True)
class _Utterance:
    """Speech whose final has not come: its audio is kept until then."""

    number: int
    start: int
    attempt: int
    """Its number for the recogniser: another one each time that it begins anew."""
    options: SpeechOptions
    pcm: list[bytes] = field(default_factory=list)
    length: int = 0
    recognized: int = 0
    paused: bool = False
    """The recogniser was told that this is all, and perhaps it is not."""
    ended_at: float | None = None
    words: list[Word] = field(default_factory=list)
    quarantined: bool = False
    """It ended two transcribers: its final is a failure, whatever comes."""
    final: Hypothesis | None = None
    """Has come, but waits for the end of speech, or for the finals of earlier utterances."""

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
    latencies: list[float] = field(default_factory=list)
    """Of finals, not taken yet."""


class Session:
    """`on(fact, now)` with `now` in seconds of any clock that never goes back."""

    __slots__ = (
        "_ahead",
        "_attempt",
        "_close_code",
        "_closing_since",
        "_created",
        "_ear_from",
        "_finalize_always",
        "_finalize_at",
        "_heard",
        "_keep",
        "_limits",
        "_listening",
        "_number",
        "_options",
        "_pending",
        "_received",
        "_running",
        "_speaking",
        "_spoken",
        "_steady",
        "_tail",
        "_tally",
        "_utterance_end",
        "_vad_pending",
        "_vad_position",
        "_voice_until",
        "_voiced",
        "state",
    )

    def __init__(self, limits: Limits, listening: Listening, now: float) -> None:
        self.state = SessionState.CREATED
        self._limits = limits
        self._options = SpeechOptions()
        self._listening = listening
        self._ahead = int(limits.max_buffered_audio_s * RATE)
        self._created = self._heard = now
        self._closing_since = now
        self._close_code = NORMAL_CLOSURE
        self._received = self._vad_position = self._spoken = self._utterance_end = 0
        self._vad_pending: list[bytes] = []
        self._tail = b""
        """The last audio judged, up to `_vad_position`, while nobody speaks."""
        self._speaking = self._voiced = listening.manual
        self._steady = False
        self._voice_until = 0
        self._ear_from = 0
        """The sample from which the ear hears that the VAD has now; what one before it still says
        of earlier ones is out of date."""
        self._finalize_at: int | None = None
        self._finalize_always = False
        self._number = self._attempt = 0
        self._running: _Utterance | None = None
        self._pending: dict[int, _Utterance] = {}
        self._tally = _Tally()

    @property
    def position(self) -> int:
        """The sample up to which everything has been dealt with."""
        if not self._pending:
            return self._vad_position
        oldest = next(iter(self._pending.values()))
        return oldest.start + oldest.recognized

    @property
    def ahead(self) -> int:
        """Samples received that have not been dealt with."""
        return self._received - self.position

    def on(self, fact: Fact, now: float) -> list[Order]:
        if self.state is SessionState.CLOSED:
            return []
        match fact:
            case AudioReceived(pcm):
                self._heard = now
                return self._audio(pcm, now)
            case VadResult():
                return self._on_vad_result(fact, now)
            case Hypothesis():
                return self._on_hypothesis(fact, now)
            case Ticked():
                return self._on_time(now)
            case VadAttached():
                return self._attach_vad()
            case TranscriberAttached():
                return self._attach_transcriber()
            case Quarantined():
                return self._quarantine(now)
            case ClientVanished():
                self.state = SessionState.CLOSED
                return []
        return self._on_client(fact, now)

    def _on_client(self, fact: Fact, now: float) -> list[Order]:
        """What the client said, audio aside."""
        self._heard = now
        match self.state, fact:
            case SessionState.CREATED, Started(options):
                self.state = SessionState.ACTIVE
                self._options = options
                return []
            case _, Started():
                error = ClientError("start_not_first", "start comes once, before any audio")
                return self._err(error, now)
            case _, KeptAlive():
                return [ProgressReport(self.position)]
            case SessionState.CLOSING, (FinalizeRequested() | StopRequested() | Reconfigured()):
                return []
            case _, Cleared():
                return self._clear()
            case _, Reconfigured(options, listening):
                return self._reconfigure(options, listening, now)
            case _, FinalizeRequested(always):
                return self._finalize(always, now)
            case _, StopRequested():
                return self._begin_closing(NORMAL_CLOSURE, now)
            case _, ClientErred(error):
                return self._err(error, now)
        raise ProtocolViolation(f"{fact!r} in {self.state.name}")

    # Audio in.

    def _audio(self, pcm: bytes, now: float) -> list[Order]:
        if self.state is SessionState.CLOSING:
            if self._close_code != NORMAL_CLOSURE:
                return []
            return self._err(ClientError("audio_after_stop", "audio came after stop"), now)
        samples = len(pcm) // BYTES_PER_SAMPLE
        if not samples:
            return []
        if self.ahead + samples > self._ahead:
            return self._err(self._overrun(), now)
        self.state = SessionState.ACTIVE
        self._received += samples
        self._vad_pending.append(pcm)
        orders = self._hear(pcm, now)
        if self._received > self._limits.max_session_s * RATE:
            return [*orders, *self._err(self._too_long(), now)]
        return orders

    def _hear(self, pcm: bytes, now: float) -> list[Order]:
        """To the VAD; or, where the client says what an utterance is, all of it is speech."""
        if not self._listening.manual:
            return [DetectSpeech(pcm, None)]
        return self._on_vad_result(VadResult(0, self._received, (), True), now)

    def _attach_vad(self) -> list[Order]:
        self._tally.seatings += 1
        return [] if self._listening.manual else [self._restart_vad()]

    def _restart_vad(self) -> DetectSpeech:
        """For an ear that knows nothing: where we are, from the border of a frame, and all that
        follows."""
        over = self._vad_position % FRAME_SAMPLES
        size = over * BYTES_PER_SAMPLE
        begun = self._latest()[-size:].rjust(size, b"\0") if over else b""
        self._ear_from = self._vad_position - over
        resume = Resume(self._ear_from, self._speaking, self._listening.endpoint)
        return DetectSpeech(begun + b"".join(self._vad_pending), resume)

    def _reconfigure(self, options: SpeechOptions, listening: Listening, now: float) -> list[Order]:
        """An utterance at hand is ended when it changes who says where utterances end."""
        self._options = options
        was, self._listening = self._listening, listening
        orders: list[Order] = []
        if listening.manual and not was.manual:
            self._advance(self._received, orders, now)
        if listening.manual != was.manual:
            if self._running:
                self._end_utterance(orders, now)
            self._speaking = self._voiced = listening.manual
        if not listening.manual and listening != was:
            orders.append(self._restart_vad())
        return orders

    def _clear(self) -> list[Order]:
        orders: list[Order] = []
        self._tail = b""
        self._vad_pending = []
        self._vad_position = self._utterance_end = self._received
        if self._running:
            self._end_attempt(self._running, orders)
            del self._pending[self._running.number]
            orders.append(UtteranceDropped(self._running.number))
            self._running = None
        if not self._listening.manual:
            self._speaking = False
            orders.append(self._restart_vad())
        return orders

    def _latest(self) -> bytes:
        """Audio that ends at `_vad_position`: at least a frame of it."""
        return b"".join(self._running.pcm[-2:]) if self._running else self._tail

    # What the VAD said.

    def _on_vad_result(self, judged: VadResult, now: float) -> list[Order]:
        orders: list[Order] = []
        if self._listening.manual and judged.transitions:
            return orders  # of before
        self._voiced = judged.voiced
        for transition in judged.transitions:
            if transition.sample >= self._ear_from:
                self._advance(transition.sample, orders, now)
                self._on_transition(transition, orders, now)
        self._advance(judged.until, orders, now)
        if self.state is SessionState.CLOSING:
            orders += self._finish(now)
        elif not self._speaking and self._silence() > self._limits.max_silence_s * RATE:
            orders += self._err(self._silent(), now)
        return orders

    def _on_transition(self, transition: Transition, orders: list[Order], now: float) -> None:
        """An ear that was changed may tell again what the one before it told: no harm in that."""
        edge, sample = transition
        match edge:
            case Edge.START if not self._speaking:
                self._start_speech(sample, orders)
            case Edge.STEADY:
                self._steady = True
                orders.append(SpeechConfirmed())
            case Edge.PAUSE if self._running and not self._running.paused:
                self._pause(self._running, sample, orders)
            case Edge.RESUME if self._running and self._running.paused:
                self._resume(self._running, orders)
            case Edge.END if self._speaking:
                self._end_speech(sample, orders, now)

    def _advance(self, until: int, orders: list[Order], now: float) -> None:
        """Take judged audio up to sample `until`: into an utterance while someone speaks."""
        until = min(until, self._received)
        while self._vad_position < until:
            cut = self._cut_at()
            self._take(self._pop_unjudged(min(until, cut)), orders)
            if self._vad_position == cut:
                self._cut(orders, now)

    def _cut(self, orders: list[Order], now: float) -> None:
        if not self._running and self._finalize_always:
            self._open_utterance(self._tail, orders)
        if self._running:
            self._end_utterance(orders, now)

    def _take(self, pcm: bytes, orders: list[Order]) -> None:
        self._vad_position += len(pcm) // BYTES_PER_SAMPLE
        if self._running:
            self._running.append(pcm)
            if not self._running.paused:
                orders.append(Recognize(self._running.attempt, pcm, False, None))
        elif self._speaking and self._voiced:  # goes on after a finalize or a cut
            self._open_utterance(self._tail + pcm, orders)
        else:
            self._tail = (self._tail + pcm)[-self._kept() :]

    def _kept(self) -> int:
        """Bytes kept while nobody speaks: speech is noticed only after it began."""
        listening = self._listening
        kept_ms = listening.prefix_padding_ms + listening.endpoint.min_speech_ms
        return kept_ms * RATE // 1000 * BYTES_PER_SAMPLE

    def _cut_at(self) -> int:
        """Where the running utterance must end: its greatest length, or a finalize."""
        start = self._running.start if self._running else self._vad_position
        longest = start + int(self._limits.max_utterance_s * RATE)
        if self._finalize_at is None or self._finalize_at <= self._vad_position:
            return longest
        return min(longest, self._finalize_at)

    def _pop_unjudged(self, until: int) -> bytes:
        """Take the audio from `_vad_position` to `until` out of `_vad_pending`."""
        wanted = (until - self._vad_position) * BYTES_PER_SAMPLE
        first = self._vad_pending[0]
        if len(first) == wanted:
            return self._vad_pending.pop(0)
        whole = b"".join(self._vad_pending)
        rest = whole[wanted:]
        self._vad_pending = [rest] if rest else []
        return whole[:wanted]

    def _start_speech(self, sample: int, orders: list[Order]) -> None:
        self._speaking = self._voiced = True
        self._steady = False
        orders.append(SpeechBoundary(True, sample))
        prefix = self._listening.prefix_padding_ms * RATE // 1000
        start = max(sample - prefix, self._utterance_end)
        back = min((self._vad_position - start) * BYTES_PER_SAMPLE, len(self._tail))
        self._tail = self._tail[len(self._tail) - back :]
        if self._vad_position > sample:  # speech began in audio that was judged before
            self._open_utterance(self._tail, orders)

    def _end_speech(self, sample: int, orders: list[Order], now: float) -> None:
        self._speaking = self._steady = False
        self._spoken = sample
        orders.append(SpeechBoundary(False, sample))
        if self._running:
            self._end_utterance(orders, now)

    # Utterances.

    def _open_utterance(self, pcm: bytes, orders: list[Order]) -> None:
        """Begin an utterance with the audio up to `_vad_position`."""
        start = self._vad_position - len(pcm) // BYTES_PER_SAMPLE
        utterance = _Utterance(self._number, start, self._next_attempt(), self._options)
        self._number += 1
        self._tail = b""
        utterance.append(pcm)
        self._running = self._pending[utterance.number] = utterance
        orders.append(UtteranceOpened(utterance.number, start))
        if self._steady:  # it goes on where the one before was cut
            orders.append(SpeechConfirmed())
        orders.append(Recognize(utterance.attempt, pcm, False, utterance.options))

    def _next_attempt(self) -> int:
        self._attempt += 1
        return self._attempt - 1

    def _pause(self, utterance: _Utterance, sample: int, orders: list[Order]) -> None:
        """Ask for the final words, in case this is the end."""
        self._voice_until = sample - self._listening.endpoint.pause_ms * RATE // 1000
        self._end_attempt(utterance, orders)
        utterance.paused = True

    def _end_attempt(self, utterance: _Utterance, orders: list[Order]) -> None:
        if not utterance.paused:
            orders.append(Recognize(utterance.attempt, b"", True, None))

    def _resume(self, utterance: _Utterance, orders: list[Order]) -> None:
        if utterance.quarantined:
            orders.append(TurnResumed(utterance.number))
            return
        utterance.paused = False
        utterance.final = None
        utterance.recognized = 0
        utterance.attempt = self._next_attempt()
        orders.append(TurnResumed(utterance.number))
        orders.append(
            Recognize(utterance.attempt, b"".join(utterance.pcm), False, utterance.options)
        )

    def _end_utterance(self, orders: list[Order], now: float) -> None:
        utterance = self._running
        assert utterance
        self._running = None
        self._finalize_at = None
        self._finalize_always = False
        until = self._utterance_end = utterance.start + utterance.length
        self._tally.speech += utterance.length
        utterance.ended_at = now
        self._end_attempt(utterance, orders)
        voice_until = self._voice_until if utterance.paused else until
        orders.append(UtteranceEnded(utterance.number, until, voice_until))
        if utterance.final:
            orders += self._tell_finals(now)

    def _attach_transcriber(self) -> list[Order]:
        """A new replica gets every utterance whose final has not come, from its beginning."""
        self._tally.seatings += 1
        return [
            Recognize(u.attempt, b"".join(u.pcm), u.paused or u.ended_at is not None, u.options)
            for u in self._pending.values()
            if u.final is None
        ]

    @property
    def awaits_words(self) -> bool:
        return any(utterance.final is None for utterance in self._pending.values())

    def _quarantine(self, now: float) -> list[Order]:
        """Those that had no final fail; the one that is still spoken, when it ends."""
        for utterance in self._pending.values():
            if utterance.final is None:
                utterance.quarantined = utterance.paused = True
                reason = "it ended the engine twice"
                utterance.final = Hypothesis(
                    0, utterance.attempt, utterance.length, (), True, 0, reason
                )
        return self._tell_finals(now)

    def _on_hypothesis(self, hypothesis: Hypothesis, now: float) -> list[Order]:
        utterance = self._attempted(hypothesis.utterance)
        if utterance is None or utterance.final:
            return []
        utterance.recognized = max(utterance.recognized, hypothesis.until)
        utterance.words[hypothesis.keep :] = hypothesis.words
        if hypothesis.final:
            utterance.final = hypothesis
            return self._tell_stable(utterance) or self._tell_finals(now)
        self._tally.partials += 1
        if not self._options.interim_results:
            return []
        return [self._transcript(utterance, False, utterance.start + utterance.recognized)]

    def _attempted(self, attempt: int) -> _Utterance | None:
        for utterance in self._pending.values():
            if utterance.attempt == attempt:
                return utterance
        return None

    def _tell_stable(self, utterance: _Utterance) -> list[Order]:
        if utterance.ended_at is not None:
            return []
        return [EagerFinal(utterance.number, tuple(utterance.words))]

    def _tell_finals(self, now: float) -> list[Order]:
        """Finals in the order of speech, though engines may finish in another."""
        orders: list[Order] = []
        while self._pending:
            utterance = next(iter(self._pending.values()))
            if utterance.final is None or utterance.ended_at is None:
                return orders
            del self._pending[utterance.number]
            orders.append(self._tell_final(utterance, utterance.final, now))
        return orders + (self._finish(now) if self.state is SessionState.CLOSING else [])

    def _tell_final(self, utterance: _Utterance, final: Hypothesis, now: float) -> Order:
        self._count_final(utterance, now)
        if final.failure:
            self._tally.failures += 1
            code = "request_quarantined" if utterance.quarantined else "utterance_failed"
            reason = f"utterance {utterance.number}: {final.failure}"
            return UtteranceFailed(utterance.number, ClientError(code, reason))
        return self._transcript(utterance, True, utterance.start + utterance.length)

    def _count_final(self, utterance: _Utterance, now: float) -> None:
        latency = now - (utterance.ended_at if utterance.ended_at is not None else now)
        self._tally.finals += 1
        self._tally.words += len(utterance.words)
        self._tally.latency_sum += latency
        self._tally.latency_max = max(self._tally.latency_max, latency)
        self._tally.latencies.append(latency)

    def _transcript(self, utterance: _Utterance, final: bool, until: int) -> TranscriptUpdate:
        words = tuple(utterance.words)
        heard = utterance.final.language if final and utterance.final else None
        return TranscriptUpdate(utterance.number, final, utterance.start, until, words, heard)

    # The end.

    def _finalize(self, always: bool, now: float) -> list[Order]:
        """End the running utterance after the audio received so far."""
        orders: list[Order] = []
        self._finalize_always = always
        if self._received > self._vad_position:
            self._finalize_at = self._received
        else:
            self._cut(orders, now)
            self._finalize_always = False
        return orders

    def _begin_closing(self, code: int, now: float) -> list[Order]:
        self.state = SessionState.CLOSING
        self._close_code = code
        self._closing_since = now
        return self._finish(now)

    def _finish(self, now: float) -> list[Order]:
        """Close if all audio is judged and all finals are in; else wait for them."""
        orders: list[Order] = []
        if self._vad_position < self._received:
            return orders
        if self._running:
            self._end_utterance(orders, now)  # and that may have closed, if its final was there
        if not self._pending and self.state is SessionState.CLOSING:
            orders.append(self._close(self._close_code))
        return orders

    def _close(self, code: int) -> Close:
        self.state = SessionState.CLOSED
        return Close(code, self.metrics())

    def _err(self, error: ClientError, now: float) -> list[Order]:
        self._tally.errors += 1
        orders: list[Order] = [ErrorReport(error)]
        if error.close is not None and self.state is not SessionState.CLOSING:
            orders += self._begin_closing(error.close, now)
        return orders

    def _on_time(self, now: float) -> list[Order]:
        limits = self._limits
        if self.state is SessionState.CLOSING:
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
        return [ErrorReport(error), self._close(1011)]

    def take_latencies(self) -> list[float]:
        """Seconds from the end of an utterance to its final, of finals since the last call."""
        taken = self._tally.latencies
        if taken:
            self._tally.latencies = []
        return taken

    def metrics(self) -> SessionMetrics:
        tally = self._tally
        ended = max(1, tally.finals)
        return SessionMetrics(
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
        return self._vad_position - self._spoken

    # What is said of limits.

    def _overrun(self) -> ClientError:
        bound = self._limits.max_buffered_audio_s
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
