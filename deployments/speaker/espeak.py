"""The embedded engine: espeak-ng, in a process of its own.

A second of speech takes it two milliseconds, so one process speaks for everybody, a sentence at a
time: what is cancelled stops at the end of its sentence, and nobody waits longer than for one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import msgspec

from deployments.child import Child
from deployments.interfaces import EngineFailed, Option, SpeechRequest, Voice
from deployments.speaker.clauses import split
from deployments.speaker.espeak_library import FASTEST, NORMAL_PACE, SLOWEST

START_TIMEOUT_S = 30.0
SPEAK_TIMEOUT_S = 30.0


class Espeak:
    """Implements `SpeakerEngine`."""

    name = "espeak"
    options = frozenset({Option.SPEED})

    def __init__(self) -> None:
        self._child: Child | None = None
        self._turn = asyncio.Lock()
        self._made = 0
        self._voices: tuple[Voice, ...] = ()

    async def start(self) -> None:
        self._child, listed = await self._new_child()
        told = msgspec.json.decode(listed, type=list[Voice])
        voices = {it.id: it._replace(language=it.language.lower()) for it in told}
        self._voices = tuple(voices.values())

    async def stop(self) -> None:
        if self._child:
            await self._child.stop()
            self._child = None

    async def voices(self) -> Sequence[Voice]:
        return self._voices

    def made(self) -> int:
        return self._made

    async def speak(self, say: SpeechRequest) -> AsyncIterator[bytes]:
        pace = round(min(FASTEST, max(SLOWEST, NORMAL_PACE * say.speed)))
        if say.voice not in {voice.id for voice in self._voices}:
            raise EngineFailed(f"espeak has no voice {say.voice[:40]}")
        for clause in split(say.text):
            for pcm in await self._clause(clause, say.voice, pace):
                yield pcm

    async def _clause(self, text: str, voice: str, pace: int) -> list[bytes]:
        """All of its speech, within some ms. A process that is left in mid-answer is out of step:
        it is killed, and the next clause starts another."""
        asked = {"text": text, "voice": voice, "words_per_minute": pace}
        async with self._turn:
            child = self._child or (await self._new_child())[0]
            self._child = None
            try:
                async with asyncio.timeout(SPEAK_TIMEOUT_S):
                    await child.write(json.dumps(asked).encode() + b"\n")
                    pieces = [pcm async for pcm in _frames(child)]
            except TimeoutError as error:
                child.kill()
                raise EngineFailed("espeak-ng took too long") from error
            except BaseException:
                child.kill()
                raise
            self._child = child
            self._made += sum(map(len, pieces)) // 2
            return pieces

    async def _new_child(self) -> tuple[Child, bytes]:
        """It says its voices first."""
        module = "deployments.speaker.espeak_voice"
        return await Child.start("espeak", module, START_TIMEOUT_S)


async def _frames(child: Child) -> AsyncIterator[bytes]:
    """Up to the empty one that ends a sentence."""
    while pcm := await child.read():
        yield pcm
