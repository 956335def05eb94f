"""The embedded engine: espeak-ng, in a process of its own.

A second of speech takes it two milliseconds, so one process speaks for everybody, a sentence at a
time: what is cancelled stops at the end of its sentence, and nobody waits longer than for one.
"""

import asyncio
import contextlib
import json
import re
import struct
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence

from deployments.interfaces import EngineFailed, Say, Voice
from deployments.speaker.espeak_library import FASTEST, NORMAL_PACE, SLOWEST

LENGTH = struct.Struct(">I")
START_TIMEOUT_S = 30.0
SPEAK_TIMEOUT_S = 30.0
SENTENCE_END = re.compile(r"(?<=[.!?;:,\n])\s+|(?<=[。！？])")  # noqa: RUF001
MAX_SENTENCE = 400
"""Characters; without marks it is cut at a space, or anywhere."""


class _Process:
    """The espeak process: one sentence at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.voices: tuple[Voice, ...] = ()

    @classmethod
    async def start(cls) -> "_Process":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from deployments.speaker.espeak_voice import main; main()",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        started = cls(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                listed = json.loads(await started.read())
        except (TimeoutError, EngineFailed) as error:
            started.kill()
            raise EngineFailed("espeak-ng does not start: is espeakng-loader there?") from error
        started.voices = tuple(Voice(**voice) for voice in listed)
        return started

    def ask(self, text: str, voice: str, words_per_minute: int) -> None:
        assert self._process.stdin
        asked = {"text": text, "voice": voice, "words_per_minute": words_per_minute}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")

    async def read(self) -> bytes:
        """The next frame; empty at the end of a sentence. Raises `EngineFailed`."""
        assert self._process.stdout
        try:
            (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            return await self._process.stdout.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise EngineFailed("the espeak process died") from error

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        self.kill()
        await self._process.wait()


class Espeak:
    """Implements `SpeakerEngine`."""

    name = "espeak"

    def __init__(self) -> None:
        self._process: _Process | None = None
        self._turn = asyncio.Lock()
        self._made = 0
        self._voices: tuple[Voice, ...] = ()

    async def start(self) -> None:
        self._process = await _Process.start()
        self._voices = self._process.voices

    async def stop(self) -> None:
        if self._process:
            await self._process.stop()
            self._process = None

    async def voices(self) -> Sequence[Voice]:
        return self._voices

    def made(self) -> int:
        return self._made

    async def speak(self, say: Say) -> AsyncIterator[bytes]:
        pace = round(min(FASTEST, max(SLOWEST, NORMAL_PACE * say.speed)))
        if say.voice not in {voice.id for voice in self._voices}:
            raise EngineFailed(f"espeak has no voice {say.voice[:40]}")
        for sentence in sentences(say.text):
            for pcm in await self._sentence(sentence, say.voice, pace):
                yield pcm

    async def _sentence(self, text: str, voice: str, pace: int) -> list[bytes]:
        """All of its speech, within some ms. A process that is left in mid-answer is out of step:
        it is killed, and the next sentence starts another."""
        async with self._turn:
            process = self._process or await _Process.start()
            self._process = None
            try:
                async with asyncio.timeout(SPEAK_TIMEOUT_S):
                    process.ask(text, voice, pace)
                    pieces = [pcm async for pcm in _frames(process)]
            except TimeoutError as error:
                process.kill()
                raise EngineFailed("espeak-ng took too long") from error
            except BaseException:
                process.kill()
                raise
            self._process = process
            self._made += sum(map(len, pieces)) // 2
            return pieces


def sentences(text: str) -> list[str]:
    """The text in pieces that are spoken one at a time."""
    return [
        line for piece in SENTENCE_END.split(text) for line in textwrap.wrap(piece, MAX_SENTENCE)
    ]


async def _frames(process: _Process) -> AsyncIterator[bytes]:
    while pcm := await process.read():
        yield pcm
