"""One reply: what was written, what of it was spoken, and when. Pure.

Times are seconds of the turn's clock; audio is counted in samples at `VOICE_RATE`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from deployments.interfaces import VOICE_RATE, ChatDelta, Tool
from deployments.speaker.clauses import ClauseSplitter
from serve_app.conversation.history import Item

SAMPLES_PER_WORD = int(0.35 * VOICE_RATE)
"""The estimated length of a word, for a clause that is not spoken to its end yet."""


@dataclass(frozen=True, slots=True)
class ReplySettings:
    """Settings of a conversation's replies; a client may change them at any time."""

    instructions: str = ""
    voice: str = ""
    speed: float = 1.0
    audio: bool = True
    """Replies are spoken, not only delta."""
    reply: bool = True
    """The end of a turn starts a reply."""
    hands_free: bool = True
    """The VAD finds the turns, and speech stops a reply."""
    interruptible: bool = True
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_tokens: int | None = None
    temperature: float | None = None
    preemptive_generation: bool = True
    resume_false_interruption: bool = True
    max_history_tokens: int = 3000
    ignored: tuple[str, ...] = ()
    """Options that the client sent and that have no effect."""


class Stages(NamedTuple):
    """Where a turn's time went, in ms. From `transcribe` on they begin at the confirmed end of
    speech or where the stage before ended; engines that worked ahead of it cost 0 or little.

    `overhead_ms` is voxray's own share: what lay between the engines' own times.
    """

    vad_ms: float = 0.0
    """Silence that it took to be sure of the end of speech."""
    transcribe_ms: float = 0.0
    """From the confirmed end to the final."""
    first_token_ms: float = 0.0
    """From asking for a reply to its first token."""
    first_clause_ms: float = 0.0
    """From asking for a reply to its first clause."""
    first_audio_ms: float = 0.0
    """From the first clause to its first audio."""
    total_ms: float = 0.0
    """From the confirmed end to the first audio, or the first text where nothing is spoken."""
    overhead_ms: float = 0.0


@dataclass(slots=True)
class Clause:
    text: str
    samples: int = 0
    spoken: bool = False

    def heard(self, samples: int) -> str:
        """The whole words that are heard in the first `samples`."""
        if self.spoken and samples >= self.samples:
            return self.text
        words = self.text.split(" ")
        whole = self.samples if self.spoken else max(self.samples, len(words) * SAMPLES_PER_WORD)
        return " ".join(words[: int(len(words) * samples / max(1, whole))])


@dataclass(slots=True)
class Timing:
    """When each stage was reached; None: not yet."""

    ended: float | None = None
    transcribed: float | None = None
    vad_ms: float = 0.0
    asked: float = 0.0
    token: float | None = None
    clause: float | None = None
    clause_engine_ms: float = 0.0
    audio: float | None = None
    audio_engine_ms: float = 0.0
    sent: float | None = None
    """The first audio, or the first text where nothing is spoken."""

    def stages(self) -> Stages:
        begin = self.asked if self.ended is None else self.ended
        ready = self.audio or self.token
        if ready is None or self.sent is None:
            return Stages(vad_ms=self.vad_ms)
        engines_s = (self.clause_engine_ms + self.audio_engine_ms) / 1000
        waited_s = self.sent - max(ready, begin)  # after everything was there
        return Stages(
            self.vad_ms,
            _ms(self.transcribed, begin),
            _ms(self.token, self.asked),
            _ms(self.clause, self.asked),
            _ms(self.audio, self.clause or self.asked),
            _ms(self.sent, begin),
            _ms(ready - self.asked - engines_s + waited_s, 0.0),
        )


def _ms(until: float | None, since: float) -> float:
    return round(max(0.0, until - since) * 1000, 1) if until is not None else 0.0


@dataclass(slots=True)
class Reply:
    """All work for a reply carries its `number`."""

    number: int
    settings: ReplySettings
    metadata: object = None
    remembered: bool = True
    basis: str | None = None
    """The words that it answers, while the person may still go on."""
    timing: Timing = field(default_factory=Timing)
    splitter: ClauseSplitter = field(default_factory=ClauseSplitter)
    clauses: list[Clause] = field(default_factory=list)
    text: str = ""
    items: list[Item] = field(default_factory=list)
    """Its output as written so far; the first may be a message, the others are calls."""
    sent_items: list[str] = field(default_factory=list)
    """Ids of the items that the client knows."""
    tokens: tuple[int, int] = (0, 0)
    finish: str | None = None
    started: bool = False
    """`ReplyStarted` was sent."""

    @property
    def audible(self) -> bool:
        return self.timing.sent is not None and self.settings.audio

    @property
    def complete(self) -> bool:
        return self.finish is not None and all(clause.spoken for clause in self.clauses)

    @property
    def samples(self) -> int:
        return sum(clause.samples for clause in self.clauses)

    @property
    def message(self) -> Item | None:
        return next((item for item in self.items if item.kind == "message"), None)

    def update_item(self, item: Item) -> int:
        """Replace the item that has the same id; its index."""
        index = next(at for at, known in enumerate(self.items) if known.id == item.id)
        self.items[index] = item
        return index

    def played_until(self) -> float:
        """When the last sample so far will have been played, by a client that plays at once."""
        return (self.timing.sent or 0.0) + self.samples / VOICE_RATE

    def heard_at(self, now: float) -> str:
        if self.timing.sent is None:
            return ""
        return self.heard(int((now - self.timing.sent) * VOICE_RATE))

    def heard(self, samples: int) -> str:
        """The text that is heard in the first `samples` of the reply."""
        text, left = "", max(0, samples)
        for clause in self.clauses:
            text += clause.heard(left)
            if left < clause.samples or not clause.spoken:
                break
            left -= clause.samples
        return text

    def note_text(self, delta: ChatDelta, now: float) -> None:
        if self.timing.token is None:
            self.timing.token = now
        if not self.clauses:
            self.timing.clause_engine_ms = delta.engine_ms
        self.text += delta.text

    def note_audio(self, engine_ms: float, now: float) -> None:
        if self.timing.audio is None:
            self.timing.audio = now
            self.timing.audio_engine_ms = engine_ms
