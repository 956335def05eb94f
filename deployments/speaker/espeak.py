"""The embedded engine: espeak-ng, in a separate process.

A second of speech takes it two milliseconds, so one process serves all requests, a sentence at a
time. A cancelled request stops at the end of its sentence; no request waits longer than that.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import msgspec

from deployments.child import Child
from deployments.fair_slots import FairSlots
from deployments.fairness import PAYER
from deployments.interfaces import EngineFailed, Option, SpeechRequest, Voice
from deployments.speaker.clauses import split
from deployments.speaker.espeak_library import FASTEST, NORMAL_PACE, SLOWEST

START_TIMEOUT_S = 30.0
SPEAK_TIMEOUT_S = 30.0
LETTERS_A_SECOND = 15
"""Of speech, about."""


class Espeak:
    """Implements `SpeakerEngine`."""

    name = "espeak"
    options = frozenset({Option.SPEED})

    def __init__(self) -> None:
        self._child: Child | None = None
        self._slot = FairSlots(1)
        self._generated = 0
        self._voices: tuple[Voice, ...] = ()

    async def start(self) -> None:
        self._child, listed = await self._new_child()
        voices = msgspec.json.decode(listed, type=list[Voice])
        by_id = {it.id: it._replace(language=it.language.lower()) for it in voices}
        self._voices = tuple(by_id.values())

    async def stop(self) -> None:
        if self._child:
            await self._child.stop()
            self._child = None

    async def voices(self) -> Sequence[Voice]:
        return self._voices

    def generated(self) -> int:
        return self._generated

    async def speak(self, request: SpeechRequest) -> AsyncIterator[bytes]:
        pace = round(min(FASTEST, max(SLOWEST, NORMAL_PACE * request.speed)))
        if request.voice not in {voice.id for voice in self._voices}:
            raise EngineFailed(
                f"espeak has no voice {request.voice[:40]!r}; GET /v1/audio/voices lists them"
            )
        for clause in split(request.text):
            for pcm in await self._clause(clause, request.voice, pace):
                yield pcm

    async def _clause(self, text: str, voice: str, pace: int) -> list[bytes]:
        """All of its speech, within milliseconds. A process that is interrupted in an answer is
        killed, because its output is out of step; the next clause starts another."""
        command = {"text": text, "voice": voice, "words_per_minute": pace}
        async with self._slot.slot(PAYER.get(), len(text) / LETTERS_A_SECOND):
            child = self._child or (await self._new_child())[0]
            self._child = None
            try:
                async with asyncio.timeout(SPEAK_TIMEOUT_S):
                    await child.write(json.dumps(command).encode() + b"\n")
                    pieces = [pcm async for pcm in _frames(child)]
            except TimeoutError as error:
                await child.stop()
                raise EngineFailed("espeak-ng took too long") from error
            except BaseException:
                await child.stop()
                raise
            self._child = child
            self._generated += sum(map(len, pieces)) // 2
            return pieces

    async def _new_child(self) -> tuple[Child, bytes]:
        """The process and its first frame: the list of voices."""
        module = "deployments.speaker.espeak_voice"
        return await Child.start("espeak", module, START_TIMEOUT_S)


async def _frames(child: Child) -> AsyncIterator[bytes]:
    """The frames of a sentence; an empty one ends it."""
    while pcm := await child.read():
        yield pcm
