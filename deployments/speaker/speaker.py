"""Requests for speech in front of an engine. Knows no engine by name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from deployments.interfaces import Say, Sound, SpeakerEngine, Voice
from deployments.requests import RequestModel


class Speaker(RequestModel[SpeakerEngine]):
    """Implements `interfaces.Requests`: `Say` in, `Sound` out."""

    async def answer(self, request: Say) -> AsyncIterator[Sound]:
        async with aclosing(self.engine.speak(request)) as pieces:  # type: ignore[type-var]
            async for pcm in pieces:
                yield Sound(request.session, pcm)
        yield Sound(request.session, final=True)

    def failed(self, request: Any, reason: str) -> Sound:
        return Sound(request.session, failure=reason)

    async def voices(self) -> Sequence[Voice]:
        await self.start()
        return await self.engine.voices()
