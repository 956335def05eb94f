"""A diarizer that takes a while, so that recordings pile up."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from deployments.diarizer.sim import SimDiarizer
from deployments.interfaces import SpeakerCount, SpeakerTurn

TAKES_S = 40.0


class SlowDiarizer(SimDiarizer):
    def __init__(self) -> None:
        super().__init__(turn_s=5.0, speakers=2)

    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> Sequence[SpeakerTurn]:
        await asyncio.sleep(TAKES_S)
        return await super().diarize(audio, speakers)
