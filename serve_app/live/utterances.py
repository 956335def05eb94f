"""The utterances of a live session whose finals have not come. Pure.

Their audio is kept until the final, so that another transcriber can take over. At a pause the
transcriber is asked for the final words already. If the person goes on, the whole utterance is sent
again as another attempt; if not, the final is there when the end of speech is confirmed.
"""

from dataclasses import dataclass, field

from deployments.interfaces import BYTES_PER_SAMPLE, Hypothesis, SpeechOptions, Word
from serve_app.errors import ClientError
from serve_app.live.events import (
    EagerFinal,
    Order,
    Recognize,
    SpeechConfirmed,
    TranscriptUpdate,
    TurnResumed,
    UtteranceDropped,
    UtteranceEnded,
    UtteranceFailed,
    UtteranceOpened,
)
from serve_app.live.pace import Pace
from serve_app.live.resume_point import ResumePoint, listen_from
from serve_app.live.tally import Tally


@dataclass(slots=True)
class SessionUtterance:
    """Positions are samples of the session; `length` and `recognized` count from `start`."""

    number: int
    start: int
    attempt: int
    """Its number for the transcriber: a new one each time it is sent from the beginning."""
    options: SpeechOptions
    pcm: list[bytes] = field(default_factory=list)
    length: int = 0
    recognized: int = 0
    paused: bool = False
    """The transcriber was asked for the final words, though more audio may follow."""
    voice_until: int | None = None
    """Where the pause began, during one."""
    ended_at: float | None = None
    cut: bool = False
    """It ended in the middle of speech, which goes on."""
    words: list[Word] = field(default_factory=list)
    has_news: bool = True
    """Its words are not those of the last partial that was sent."""
    partial_at: float = 0.0
    """When that was."""
    quarantined: bool = False
    """It crashed two transcribers: its final is a failure."""
    final: Hypothesis | None = None
    """Waits for the end of speech, or for the finals of earlier utterances."""

    def append(self, pcm: bytes) -> None:
        self.pcm.append(pcm)
        self.length += len(pcm) // BYTES_PER_SAMPLE

    @property
    def end(self) -> int:
        return self.start + self.length

    def audio(self) -> bytes:
        return b"".join(self.pcm)


class SessionUtterances:
    """Oldest first; at most one, the last, is `running`: the person is still speaking it."""

    __slots__ = ("_attempts", "_pending", "_tally", "options", "pace", "point", "running")

    def __init__(self, tally: Tally) -> None:
        self.options = SpeechOptions()
        """Of the next utterance."""
        self.pace = Pace()
        self.running: SessionUtterance | None = None
        self.point = ResumePoint()
        """The latest."""
        self._pending: dict[int, SessionUtterance] = {}
        self._attempts = 0
        self._tally = tally

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def awaits_words(self) -> bool:
        return any(utterance.final is None for utterance in self._pending.values())

    @property
    def recognized_until(self) -> int | None:
        """The sample up to which the oldest utterance is recognised; None if there is none."""
        for oldest in self._pending.values():
            return oldest.start + oldest.recognized
        return None

    def open(self, pcm: bytes, until: int, confirmed: bool) -> list[Order]:
        """Begin an utterance with `pcm`, which ends at sample `until`.

        `confirmed`: it continues speech that was cut, and that is known to be speech.
        """
        start = until - len(pcm) // BYTES_PER_SAMPLE
        number = self._tally.utterances
        self._tally.utterances += 1
        utterance = SessionUtterance(number, start, self._next_attempt(), self.options)
        utterance.append(pcm)
        self.running = self._pending[number] = utterance
        orders: list[Order] = [UtteranceOpened(number, start)]
        if confirmed:
            orders.append(SpeechConfirmed())
        return [*orders, Recognize(utterance.attempt, pcm, False, utterance.options)]

    def extend(self, utterance: SessionUtterance, pcm: bytes) -> list[Order]:
        utterance.append(pcm)
        return [] if utterance.paused else [Recognize(utterance.attempt, pcm, False, None)]

    def pause(self, voice_until: int) -> list[Order]:
        """Ask for the final words of the running utterance, in case this is its end."""
        utterance = self.running
        if utterance is None or utterance.paused:
            return []
        utterance.voice_until = voice_until
        if not self.pace.eager:
            return []
        utterance.paused = True
        return [Recognize(utterance.attempt, b"", True, None)]

    def resume(self) -> list[Order]:
        """The person goes on: send the running utterance again, as another attempt."""
        utterance = self.running
        if utterance is None:
            return []
        if not utterance.paused:
            utterance.voice_until = None
            return []
        resumed = TurnResumed(utterance.number)
        if utterance.quarantined:
            return [resumed]
        utterance.paused, utterance.voice_until = False, None
        utterance.final, utterance.recognized = None, 0
        utterance.attempt = self._next_attempt()
        return [
            resumed,
            Recognize(utterance.attempt, utterance.audio(), False, utterance.options),
        ]

    def end(self, utterance: SessionUtterance, cut: bool, now: float) -> list[Order]:
        self.running = None
        utterance.ended_at, utterance.cut = now, cut
        voice_until = utterance.end if utterance.voice_until is None else utterance.voice_until
        return [
            *_end_attempt(utterance),
            UtteranceEnded(utterance.number, utterance.end, voice_until),
            *self._finals(now),
        ]

    def drop(self) -> list[Order]:
        """Forget the running utterance."""
        utterance, self.running = self.running, None
        if utterance is None:
            return []
        del self._pending[utterance.number]
        return [*_end_attempt(utterance), UtteranceDropped(utterance.number)]

    def on_transcriber_attached(self) -> list[Order]:
        """A new replica gets every utterance that has no final, from its beginning."""
        return [
            Recognize(u.attempt, u.audio(), u.paused or u.ended_at is not None, u.options)
            for u in self._pending.values()
            if u.final is None
        ]

    def on_quarantined(self, now: float) -> list[Order]:
        """Those that have no final fail; the running one when it ends."""
        for utterance in self._pending.values():
            if utterance.final is None:
                utterance.quarantined = utterance.paused = True
                reason = "it crashed the engine twice"
                utterance.final = Hypothesis(
                    0, utterance.attempt, utterance.length, (), True, 0, reason
                )
        return self._finals(now)

    def on_hypothesis(self, hypothesis: Hypothesis, now: float) -> list[Order]:
        utterance = self._attempted(hypothesis.utterance)
        if utterance is None or utterance.final:
            return []
        utterance.recognized = max(utterance.recognized, hypothesis.until)
        utterance.has_news |= bool(hypothesis.words) or hypothesis.keep < len(utterance.words)
        utterance.words[hypothesis.keep :] = hypothesis.words
        if hypothesis.final:
            return self._on_final(utterance, hypothesis, now)
        self._tally.partials += 1
        if not self.options.interim_results or not self._is_due(utterance, now):
            return []
        return [_transcript(utterance, False, utterance.start + utterance.recognized)]

    def _is_due(self, utterance: SessionUtterance, now: float) -> bool:
        """A partial of it is sent now, at the present pace."""
        pace = self.pace
        is_due = (pace.unchanged or utterance.has_news) and (
            now - utterance.partial_at >= pace.every_s
        )
        if is_due:
            utterance.has_news, utterance.partial_at = False, now
        else:
            self._tally.withheld += 1
        return is_due

    def _on_final(self, utterance: SessionUtterance, final: Hypothesis, now: float) -> list[Order]:
        utterance.final = final
        if utterance.ended_at is None:
            return [EagerFinal(utterance.number, tuple(utterance.words))]
        return self._finals(now)

    def _finals(self, now: float) -> list[Order]:
        """Those that are due, in the order of speech; engines may finish in another."""
        orders: list[Order] = []
        while self._pending:
            utterance = next(iter(self._pending.values()))
            if utterance.final is None or utterance.ended_at is None:
                break
            del self._pending[utterance.number]
            words, latency_s = len(utterance.words), now - utterance.ended_at
            self._tally.count_final(words, utterance.length, latency_s)
            orders.append(self._outcome(utterance, utterance.final))
        return orders

    def _outcome(self, utterance: SessionUtterance, final: Hypothesis) -> Order:
        self._tally.failures += final.failure is not None
        self.point = self._point_after(utterance)
        if final.failure:
            code = "request_quarantined" if utterance.quarantined else "utterance_failed"
            reason = f"utterance {utterance.number}: {final.failure}"
            return UtteranceFailed(utterance.number, ClientError(code, reason), self.point)
        return _transcript(utterance, True, utterance.end, final.language, self.point)

    def _point_after(self, utterance: SessionUtterance) -> ResumePoint:
        end, tally = utterance.end, self._tally
        return ResumePoint(
            audio=end,
            listen=max(self.point.listen, listen_from(end, utterance.cut)),
            speaking=utterance.cut,
            utterance=utterance.number + 1,
            utterance_ended=end,
            speech_ended=end,
            speech=tally.speech,
            words=tally.words,
            failures=tally.failures,
            heard=tally.heard,
        )

    def _attempted(self, attempt: int) -> SessionUtterance | None:
        for utterance in self._pending.values():
            if utterance.attempt == attempt:
                return utterance
        return None

    def _next_attempt(self) -> int:
        self._attempts += 1
        return self._attempts - 1


def _end_attempt(utterance: SessionUtterance) -> list[Order]:
    return [] if utterance.paused else [Recognize(utterance.attempt, b"", True, None)]


def _transcript(
    utterance: SessionUtterance,
    final: bool,
    until: int,
    language: str | None = None,
    point: ResumePoint | None = None,
) -> TranscriptUpdate:
    words = tuple(utterance.words)
    return TranscriptUpdate(utterance.number, final, utterance.start, until, words, language, point)
