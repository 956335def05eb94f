"""The simulated engine: speakers take turns by the clock. Its name is in every answer."""

from collections.abc import AsyncIterator, Sequence

from deployments.interfaces import BYTES_PER_SAMPLE, RATE, Option, SpeakerCount, SpeakerTurn


class SimDiarizer:
    """Turn k covers seconds [k, k+1) x `turn_s` and is speaker k modulo their number."""

    name = "sim"
    options = frozenset({Option.SPEAKERS})

    def __init__(self, turn_s: float, speakers: int) -> None:
        self._turn = round(turn_s * RATE)
        self._speakers = speakers

    async def start(self) -> None:
        """Nothing to load."""

    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> Sequence[SpeakerTurn]:
        samples = 0
        async for piece in audio:
            samples += len(piece) // BYTES_PER_SAMPLE
        count = max(speakers.least, min(self._speakers, speakers.most))
        return [
            SpeakerTurn(number % count, start, min(samples, start + self._turn))
            for number, start in enumerate(range(0, samples, self._turn))
        ]

    async def stop(self) -> None:
        """Nothing to stop."""
