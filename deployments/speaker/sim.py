"""The simulated engine: after a given time, a hum as long as the spoken text would be.

For capacity planning and tests.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from deployments.interfaces import VOICE_RATE, EngineFailed, Option, SpeechRequest, Voice

VOICES = (
    Voice("sim-low", "en-us", "unknown", "A hum at 220 Hz"),
    Voice("sim-high", "en-us", "unknown", "A hum at 440 Hz"),
)
PITCH_HZ = {"sim-low": 220, "sim-high": 440}
LOUDNESS = 3000
PIECE_S = 0.1


class SimSpeaker:
    """Hums for `words_per_second` words a second, `realtime_factor` times faster than it plays."""

    name = "sim"
    options = frozenset({Option.SPEED})

    def __init__(
        self, first_audio_ms: float, words_per_second: float, realtime_factor: float
    ) -> None:
        self._first_audio_s = first_audio_ms / 1000
        self._words_per_second = words_per_second
        self._realtime_factor = realtime_factor
        self._generated = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def voices(self) -> Sequence[Voice]:
        return VOICES

    def generated(self) -> int:
        return self._generated

    async def speak(self, request: SpeechRequest) -> AsyncIterator[bytes]:
        if request.voice not in PITCH_HZ:
            raise EngineFailed(
                f"sim has no voice {request.voice[:40]!r}; GET /v1/audio/voices lists them"
            )
        words = max(1, len(request.text.split()))
        left = int(words / self._words_per_second / request.speed * VOICE_RATE)
        hum = tone(PITCH_HZ[request.voice])
        await asyncio.sleep(self._first_audio_s)
        loop = asyncio.get_running_loop()
        began, spoken = loop.time(), 0
        while left:
            piece = min(left, int(PIECE_S * VOICE_RATE))
            self._generated += piece
            yield hum[: 2 * piece]
            left, spoken = left - piece, spoken + piece
            due = began + spoken / VOICE_RATE / self._realtime_factor
            await asyncio.sleep(due - loop.time())


def tone(hz: int) -> bytes:
    """A piece of a sine wave that repeats without a click, because it has whole periods."""
    import numpy as np

    at = np.arange(int(PIECE_S * VOICE_RATE)) / VOICE_RATE
    return (LOUDNESS * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()
