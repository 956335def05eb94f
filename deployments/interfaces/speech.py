"""Text to speech: requests, audio and the engine."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from deployments.interfaces.engine import Options


class SpeechRequest(NamedTuple):
    """Text to speak. Answered by `AudioDelta`s."""

    session: int
    text: str
    voice: str
    speed: float = 1.0
    """1 is the normal pace of the voice; from 0.25 to 4."""
    clause: int = 0
    """Its index in the reply. Clause 0 goes first, because the listener waits for it in silence."""
    trace: str = ""
    """As in `ChatRequest`."""


class AudioDelta(NamedTuple):
    """The next audio: mono pcm_s16le at `VOICE_RATE`. The last delta is `final` or failed."""

    session: int
    pcm: bytes = b""
    final: bool = False
    failure: str | None = None
    engine_ms: float = 0.0

    @property
    def ended(self) -> bool:
        return self.final or self.failure is not None


class Voice(NamedTuple):
    id: str
    language: str
    """A BCP 47 tag in lower case, such as `en-us`."""
    gender: str
    """`female`, `male` or `unknown`."""
    name: str


class SpeakerEngine(Protocol):
    """Speaks text. `speak` yields mono pcm_s16le at `VOICE_RATE`; closing it stops the model."""

    name: str
    options: Options
    """Which of SPEED and BLEND it supports."""

    async def start(self) -> None: ...

    async def voices(self) -> Sequence[Voice]: ...

    def speak(self, request: SpeechRequest) -> AsyncIterator[bytes]: ...

    async def stop(self) -> None: ...

    def generated(self) -> int:
        """Samples spoken since the start."""
