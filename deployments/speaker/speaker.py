"""Requests for speech in front of an engine. Knows no engine by name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from deployments.interfaces import AudioDelta, SpeakerEngine, SpeechRequest, Voice
from deployments.requests import RequestModel


class Speaker(RequestModel[SpeakerEngine]):
    """`SpeechRequest` in, `AudioDelta` out."""

    async def answer(self, request: SpeechRequest) -> AsyncIterator[AudioDelta]:
        async with aclosing(self.engine.speak(request)) as pieces:  # type: ignore[type-var]
            async for pcm in pieces:
                yield AudioDelta(request.session, pcm)
        yield AudioDelta(request.session, final=True)

    def failed(self, request: Any, reason: str) -> AudioDelta:
        return AudioDelta(request.session, failure=reason)

    async def voices(self) -> Sequence[Voice]:
        await self.start()
        return await self.engine.voices()
