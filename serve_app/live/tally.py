"""Counts what a live session does. Pure."""

from dataclasses import dataclass, field

from deployments.interfaces import RATE
from serve_app.live.events import SessionMetrics
from serve_app.live.resume_point import ResumePoint

FIRST_ATTACHMENTS = 2
"""A session is attached to a VAD and to a transcriber once; each further time is a replay."""


@dataclass(slots=True)
class Tally:
    heard: int = 0
    """Samples received, by the connections before this one, too; each once."""
    speech: int = 0
    """Samples in utterances that have finals."""
    utterances: int = 0
    words: int = 0
    partials: int = 0
    withheld: int = 0
    finals: int = 0
    failures: int = 0
    errors: int = 0
    attachments: int = 0
    before: int = 0
    """Utterances of the connections before this one, if the session was resumed."""
    latency_sum: float = 0.0
    latency_max: float = 0.0
    _latencies: list[float] = field(default_factory=list)

    def resume(self, point: ResumePoint) -> None:
        """Count on. Partials, errors, replays and latencies are those of this connection."""
        self.before = self.utterances = self.finals = point.utterance
        self.speech, self.words, self.failures = point.speech, point.words, point.failures
        self.heard = point.heard

    def count_final(self, words: int, samples: int, latency_s: float) -> None:
        self.finals += 1
        self.words += words
        self.speech += samples
        self.latency_sum += latency_s
        self.latency_max = max(self.latency_max, latency_s)
        self._latencies.append(latency_s)

    def take_latencies(self) -> list[float]:
        """Seconds from the end of an utterance to its final, for the finals since the last call."""
        taken, self._latencies = self._latencies, []
        return taken

    def metrics(self, received: int) -> SessionMetrics:
        """`received`: samples of audio in the session."""
        timed = max(1, self.finals - self.before)
        return SessionMetrics(
            audio_ms=received * 1000 // RATE,
            speech_ms=self.speech * 1000 // RATE,
            utterances=self.utterances,
            words=self.words,
            partials=self.partials,
            partials_withheld=self.withheld,
            finals=self.finals,
            failures=self.failures,
            errors=self.errors,
            replays=max(0, self.attachments - FIRST_ATTACHMENTS),
            final_latency_ms_avg=round(self.latency_sum / timed * 1000, 1),
            final_latency_ms_max=round(self.latency_max * 1000, 1),
        )
