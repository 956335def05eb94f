"""A live transcription session as a state machine. Pure: it awaits nothing and reads no clock.

Facts go into `Session.on` with the time; orders come out. Positions are samples at 16 kHz since the
session began. All audio goes to the VAD first; what the VAD calls speech goes to the transcriber,
so an utterance holds the same samples however they arrived. Audio that a replica has not dealt with
is kept, so that another one can take over: `VadAttached` and `TranscriberAttached` announce a
replica that knows nothing of this session.
"""

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
)
from serve_app.config import Limits
from serve_app.errors import ClientError, ProtocolViolation
from serve_app.live import limit_errors
from serve_app.live.audio_buffer import AudioBuffer
from serve_app.live.events import (
    SERVICE_RESTART,
    AudioReceived,
    Cleared,
    ClientErred,
    ClientVanished,
    Close,
    DetectSpeech,
    DrainEnded,
    Draining,
    DrainStarted,
    ErrorReport,
    Fact,
    FinalizeRequested,
    KeptAlive,
    Listening,
    Order,
    ProgressReport,
    QualityChanged,
    Quarantined,
    Reconfigured,
    Resumable,
    Resumed,
    SessionMetrics,
    SpeechBoundary,
    SpeechConfirmed,
    Started,
    StopRequested,
    Ticked,
    TranscriberAttached,
    Unserved,
    VadAttached,
)
from serve_app.live.pace import pace_at
from serve_app.live.resume_point import CUT_RECALL, ResumePoint, listen_from
from serve_app.live.tally import Tally
from serve_app.live.utterances import SessionUtterances

POINT_AGE_S = 60.0
"""A client gets its resume point again after this time: its token expires."""

NORMAL_CLOSURE = 1000
ENGINE_TIMEOUT_CLOSURE = 1011
UNSERVED = "no replica recognises speech now: the audio is kept, and recognised when one does"


class SessionState(Enum):
    CREATED = auto()
    ACTIVE = auto()
    CLOSING = auto()
    CLOSED = auto()


class Session:
    """`on(fact, now)` with `now` in seconds of any monotonic clock."""

    __slots__ = (
        "_audio",
        "_close_code",
        "_closing_since",
        "_confirmed",
        "_created",
        "_finalize_always",
        "_finalize_at",
        "_known_until",
        "_last_message",
        "_limits",
        "_listening",
        "_now",
        "_orders",
        "_point_told",
        "_reported",
        "_speaking",
        "_speech_ended",
        "_tally",
        "_utterance_ended",
        "_utterances",
        "_vad_since",
        "_voiced",
        "state",
    )

    def __init__(self, limits: Limits, listening: Listening, now: float) -> None:
        self.state = SessionState.CREATED
        self._limits = limits
        self._listening = listening
        self._tally = Tally()
        self._audio = AudioBuffer()
        self._utterances = SessionUtterances(self._tally)
        self._created = self._last_message = self._closing_since = self._now = now
        self._point_told = now
        self._close_code = NORMAL_CLOSURE
        self._orders: list[Order] = []
        self._speaking = self._voiced = listening.manual
        self._confirmed = False
        """The VAD has heard enough voice in this speech for it to be no cough."""
        self._speech_ended = self._utterance_ended = 0
        self._known_until = 0
        """Audio before this sample is final since before the session was resumed."""
        self._reported = 0
        """The position that the client was told last."""
        self._vad_since = 0
        """Where the VAD's present replica or settings took over; transitions before are stale."""
        self._finalize_at: int | None = None
        self._finalize_always = False

    @property
    def position(self) -> int:
        """The sample up to which everything has been dealt with."""
        recognized = self._utterances.recognized_until
        return self._audio.position if recognized is None else recognized

    @property
    def point(self) -> ResumePoint:
        """Where the session can be resumed."""
        return self._utterances.point._replace(heard=self._tally.heard)

    @property
    def ahead(self) -> int:
        """Samples received that have not been dealt with."""
        return self._audio.received - self.position

    @property
    def awaits_words(self) -> bool:
        return self._utterances.awaits_words

    @property
    def heard(self) -> int:
        """Samples received, by the connections before this one, too; each once."""
        return self._tally.heard

    def heard_before(self, samples: int) -> None:
        """The connections before this one have received so many."""
        self._tally.heard = max(self._tally.heard, samples)

    @property
    def received_s(self) -> float:
        return self._audio.received / RATE

    def metrics(self) -> SessionMetrics:
        return self._tally.metrics(self._audio.received)

    def take_latencies(self) -> list[float]:
        """See `Tally.take_latencies`."""
        return self._tally.take_latencies()

    def on(self, fact: Fact, now: float) -> list[Order]:
        """Raises `ProtocolViolation` for a fact that is impossible in this state."""
        if self.state is SessionState.CLOSED:
            return []
        self._orders, self._now = [], now
        self._on_fact(fact)
        if self.state is SessionState.CLOSING:
            self._close_if_done()
        return self._orders

    def _on_fact(self, fact: Fact) -> None:
        match fact:
            case AudioReceived(pcm):
                self._on_audio(pcm)
            case VadResult():
                self._on_vad_result(fact)
            case Hypothesis():
                self._orders += self._utterances.on_hypothesis(fact, self._now)
            case Ticked():
                self._on_time()
            case VadAttached():
                self._on_vad_attached()
            case TranscriberAttached():
                self._tally.attachments += 1
                self._orders += self._utterances.on_transcriber_attached()
            case Unserved():
                self._err(ClientError("engine_unavailable", UNSERVED))
            case Quarantined():
                self._orders += self._utterances.on_quarantined(self._now)
            case DrainStarted(timeout_s):
                self._on_drain_started(timeout_s)
            case DrainEnded():
                self._on_drain_ended()
            case QualityChanged(level):
                self._utterances.pace = pace_at(level)
                self._orders.append(fact)
            case ClientVanished():
                self.state = SessionState.CLOSED
            case _:
                self._on_client(fact)

    def _on_client(self, fact: Fact) -> None:
        """Messages of the client other than audio."""
        self._last_message = self._now
        match self.state, fact:
            case SessionState.CREATED, Resumed():
                self._resume(fact)
            case SessionState.CREATED, Started(options):
                self.state = SessionState.ACTIVE
                self._utterances.options = options
            case _, Started():
                self._err(ClientError("start_not_first", "start comes once, before any audio"))
            case _, KeptAlive():
                self._reported = max(self._reported, self.position)
                self._orders.append(ProgressReport(self._reported))
            case SessionState.CLOSING, (FinalizeRequested() | StopRequested() | Reconfigured()):
                pass
            case _, Cleared():
                self._clear()
            case _, Reconfigured(options, listening):
                self._reconfigure(options, listening)
            case _, FinalizeRequested(always):
                self._finalize(always)
            case _, StopRequested():
                self._begin_closing(NORMAL_CLOSURE)
            case _, ClientErred(error):
                self._err(error)
            case _:
                raise ProtocolViolation(f"{fact!r} in {self.state.name}")

    # Resuming.

    def _resume(self, fact: Resumed) -> None:
        """Go on from a point of a session that another connection began."""
        self.state = SessionState.ACTIVE
        point = self._utterances.point = fact.point
        self._utterances.options = fact.options
        self._created = self._now - fact.age_s
        self._tally.resume(point)
        self._audio.begin(point.listen)
        self._known_until = self._reported = point.audio
        self._utterance_ended, self._speech_ended = point.utterance_ended, point.speech_ended
        self._speaking = point.speaking
        self._restart_vad()

    def _hear_again(self, until: int) -> None:
        """Audio that is final already: the next utterance may begin in it, but no earlier."""
        until = min(until, self._known_until, self._audio.received)
        if until > self._audio.position:
            self._remember(self._audio.pop(until))
        if until == self._known_until:
            self._audio.trim(self._utterance_ended)

    def _on_rest(self, sample: int) -> None:
        if not self._utterances:
            self._utterances.point = self.point._replace(
                audio=sample,
                listen=listen_from(sample, speaking=False),
                speaking=False,
            )
            self._tell_point()

    def _tell_point(self) -> None:
        self._point_told = self._now
        self._orders.append(Resumable(self.point))

    # Audio in.

    def _on_audio(self, pcm: bytes) -> None:
        self._last_message = self._now
        samples = len(pcm) // BYTES_PER_SAMPLE
        if self.state is SessionState.CLOSING:
            if self._close_code == NORMAL_CLOSURE:
                self._err(ClientError("audio_after_stop", "audio arrived after stop"))
        elif samples and self.ahead + samples > self._limits.max_buffered_audio_s * RATE:
            self._err(limit_errors.audio_overrun(self._limits))
        elif samples:
            self._accept(pcm)

    def _accept(self, pcm: bytes) -> None:
        """To the VAD; or, where the client says what an utterance is, all of it is speech."""
        self.state = SessionState.ACTIVE
        self._audio.push(pcm)
        self._tally.heard = max(self._tally.heard, self._audio.received)
        if self._listening.manual:
            self._on_vad_result(VadResult(0, self._audio.received, (), True))
        else:
            self._orders.append(DetectSpeech(pcm, None))
        if self._audio.received > self._limits.max_session_s * RATE:
            self._err(limit_errors.session_too_long(self._limits))

    def _on_vad_attached(self) -> None:
        self._tally.attachments += 1
        if not self._listening.manual:
            self._restart_vad()

    def _restart_vad(self) -> None:
        """Tell a VAD that knows nothing of this session where it is, and send what follows.

        It hears the last seconds again, or it would find the end of speech late, or not at all. It
        may not find the same pause, and then it would not tell that the person goes on after it: so
        a pause is over.
        """
        self._orders += self._utterances.resume()
        running = self._utterances.running
        judged = b"".join(running.pcm)[-CUT_RECALL * BYTES_PER_SAMPLE :] if running else None
        start, pcm = self._audio.replay(judged)
        self._vad_since = self._audio.frame
        deaf_until = max(self._known_until, self._audio.position)
        resume = Resume(start, self._speaking, self._listening.endpoint, deaf_until)
        self._orders.append(DetectSpeech(pcm, resume))

    def _reconfigure(self, options: SpeechOptions, listening: Listening) -> None:
        """The running utterance is ended when VAD and client take turns in ending utterances."""
        self._utterances.options = options
        before, self._listening = self._listening, listening
        if listening.manual and not before.manual:
            self._advance(self._audio.received)
        if listening.manual != before.manual:
            self._end_utterance()
            self._speaking = self._voiced = listening.manual
        if not listening.manual and listening != before:
            self._restart_vad()

    def _clear(self) -> None:
        self._audio.clear()
        self._utterance_ended = self._audio.received
        self._orders += self._utterances.drop()
        if not self._listening.manual:
            self._speaking = False
            self._restart_vad()

    # What the VAD found.

    def _on_vad_result(self, result: VadResult) -> None:
        if self._listening.manual and result.transitions:
            return  # stale: the VAD is no longer asked
        self._voiced = result.voiced
        if self._audio.position < self._known_until:
            self._hear_again(result.until)
        for transition in result.transitions:
            if transition.sample >= self._vad_since:
                self._advance(transition.sample)
                self._on_transition(transition)
        self._advance(result.until)
        silent = not self._speaking and self._silence() > self._limits.max_silence_s * RATE
        if silent and self.state is not SessionState.CLOSING:
            self._err(limit_errors.silence_timeout(self._limits))

    def _silence(self) -> int:
        return self._audio.position - self._speech_ended

    def _on_transition(self, transition: Transition) -> None:
        """A VAD that was restarted may repeat a transition: the second one has no effect."""
        edge, sample = transition
        match edge:
            case Edge.START if not self._speaking:
                self._start_speech(sample)
            case Edge.CONFIRMED:
                self._confirmed = True
                self._orders.append(SpeechConfirmed())
            case Edge.PAUSE:
                pause = self._listening.endpoint.pause_ms * RATE // 1000
                self._orders += self._utterances.pause(sample - pause)
            case Edge.RESUME:
                self._orders += self._utterances.resume()
            case Edge.END if self._speaking:
                self._end_speech(sample)
            case Edge.REST:
                self._on_rest(sample)

    def _start_speech(self, sample: int) -> None:
        self._speaking = self._voiced = True
        self._confirmed = False
        self._orders.append(SpeechBoundary(True, sample))
        prefix = self._listening.prefix_padding_ms * RATE // 1000
        self._audio.trim(max(sample - prefix, self._utterance_ended))
        if self._audio.position > sample:  # speech began in audio that was judged before
            self._open_utterance(b"")

    def _end_speech(self, sample: int) -> None:
        self._speaking = self._confirmed = False
        self._speech_ended = sample
        self._orders.append(SpeechBoundary(False, sample))
        self._end_utterance()

    # Judged audio, cut into utterances.

    def _advance(self, until: int) -> None:
        """Take audio judged up to sample `until`: into an utterance while someone speaks."""
        until = min(until, self._audio.received)
        while self._audio.position < until:
            cut = self._next_cut()
            self._take(self._audio.pop(min(until, cut)))
            if self._audio.position == cut:
                self._cut()

    def _next_cut(self) -> int:
        """Where the running utterance must end: its greatest length, or a finalize."""
        position, running = self._audio.position, self._utterances.running
        start = running.start if running else position
        longest = start + int(self._limits.max_utterance_s * RATE)
        if self._finalize_at is None or self._finalize_at <= position:
            return longest
        return min(longest, self._finalize_at)

    def _take(self, pcm: bytes) -> None:
        if running := self._utterances.running:
            self._orders += self._utterances.extend(running, pcm)
        elif self._speaking and self._voiced:  # goes on after a finalize or a cut
            self._open_utterance(pcm)
        else:
            self._remember(pcm)

    def _remember(self, pcm: bytes) -> None:
        listening = self._listening
        most_ms = listening.prefix_padding_ms + listening.endpoint.min_speech_ms
        self._audio.remember(pcm, most_ms)

    def _open_utterance(self, pcm: bytes) -> None:
        """With the remembered audio and `pcm`, which together end at the present position."""
        audio = self._audio.take_remembered() + pcm
        self._orders += self._utterances.open(audio, self._audio.position, self._confirmed)

    def _end_utterance(self) -> None:
        if running := self._utterances.running:
            self._finalize_at, self._finalize_always = None, False
            self._utterance_ended = running.end
            self._orders += self._utterances.end(running, self._speaking, self._now)

    def _finalize(self, always: bool) -> None:
        """End the running utterance after the audio received so far."""
        self._finalize_always = always
        if self._audio.drained:
            self._cut()
            self._finalize_always = False
        else:
            self._finalize_at = self._audio.received

    def _cut(self) -> None:
        if not self._utterances.running and self._finalize_always:
            self._open_utterance(b"")
        self._end_utterance()

    # The end.

    def _on_drain_started(self, timeout_s: float) -> None:
        if self.state is not SessionState.CLOSING:
            self._orders.append(Draining(int(timeout_s * 1000), self.point))

    def _on_drain_ended(self) -> None:
        if self.state is not SessionState.CLOSING:
            self._begin_closing(SERVICE_RESTART)

    def _begin_closing(self, code: int) -> None:
        """`on` closes as soon as all audio is judged and all finals are in."""
        self.state = SessionState.CLOSING
        self._close_code = code
        self._closing_since = self._now

    def _close_if_done(self) -> None:
        if self._audio.drained:
            self._end_utterance()
            if not self._utterances:
                self._close(self._close_code)

    def _close(self, code: int) -> None:
        self.state = SessionState.CLOSED
        self._orders.append(Close(code, self.metrics()))

    def _err(self, error: ClientError) -> None:
        self._tally.errors += 1
        self._orders.append(ErrorReport(error))
        if error.close is not None and self.state is not SessionState.CLOSING:
            self._begin_closing(error.close)

    def _on_time(self) -> None:
        limits, now = self._limits, self._now
        if self.state is SessionState.CLOSING:
            if now - self._closing_since > limits.closing_timeout_s:
                self._err(limit_errors.finals_timeout(limits))
                self._close(ENGINE_TIMEOUT_CLOSURE)
        elif now - self._last_message > limits.idle_timeout_s:
            self._err(limit_errors.idle_timeout(limits))
        elif now - self._created > limits.max_session_s:
            self._err(limit_errors.session_too_long(limits))
        elif now - self._point_told > POINT_AGE_S:
            self._tell_point()
