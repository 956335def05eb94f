"""Text to speech: what a speaker engine is asked and what it answers."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from deployments.interfaces.engine import Options


class SpeechRequest(NamedTuple):
    """Wants text spoken. Answered by `AudioDelta`."""

    session: int
    text: str
    voice: str
    speed: float = 1.0
    """1 is the voice's own pace; from 0.25 to 4."""
    clause: int = 0
    """Its number in what is being said; somebody waits in silence for the first one, 0."""


class AudioDelta(NamedTuple):
    """The next of the speech: mono pcm_s16le at `VOICE_RATE`. The last one is `final` or failed."""

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
    """Of SPEED and BLEND those that it uses."""

    async def start(self) -> None: ...

    async def voices(self) -> Sequence[Voice]: ...

    def speak(self, say: SpeechRequest) -> AsyncIterator[bytes]: ...

    async def stop(self) -> None: ...

    def made(self) -> int:
        """Samples spoken since the start."""
