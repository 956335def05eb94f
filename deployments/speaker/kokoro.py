"""Kokoro-82M: all its voices, blends of them, and one batch across all who want speech.

A clause waits with everybody's clauses until the model is free; those for which somebody waits in
silence, the first of a reply, go first.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from deployments.audio import float_to_int16
from deployments.batcher import Batcher, Jobs
from deployments.gpu import alone_on_the_gpu, chosen_device
from deployments.interfaces import EngineFailed, Option, SpeechRequest, Voice
from deployments.speaker.blend import parts
from deployments.speaker.clauses import split
from deployments.speaker.phonemes import LANGUAGES, Phonemes

REPOSITORY = "hexgrad/Kokoro-82M"
WEIGHTS = "kokoro-v1_0.pth"
MOST_PHONEMES = 510
GENDERS = {"f": "female", "m": "male"}


class Kokoro:
    """Implements `SpeakerEngine`. See the config for its arguments."""

    name = "kokoro"
    options = frozenset({Option.SPEED, Option.BLEND})

    def __init__(self, model: str, device: str, batch: int, gpu_memory: float = 0.0) -> None:
        self._path = Path(model)
        self._device = device
        self._gpu_memory = gpu_memory
        self._batcher: Batcher[Any, Any] = Batcher(self._speak, batch)
        self._phonemes: dict[str, Phonemes] = {}
        self._spelling = asyncio.Lock()
        self._packs: dict[str, Any] = {}
        self._voices: tuple[Voice, ...] = ()
        self._made = 0

    async def start(self) -> None:
        """Raises `EngineFailed` when the model cannot be loaded."""
        files = sorted(self._path.glob("voices/*.pt"))
        self._voices = tuple(voice(file.stem) for file in files if file.stem[0] in LANGUAGES)
        if not self._voices:
            raise EngineFailed(f"{self._path} holds no Kokoro model with voices")
        try:
            await asyncio.to_thread(self._load)
        except Exception as error:  # PyTorch raises of every kind
            raise EngineFailed(f"Kokoro cannot be loaded from {self._path}: {error}") from error
        await self._sound("a", "Hello there.", SpeechRequest(0, "", self._voices[0].id))

    async def stop(self) -> None:
        await self._batcher.stop()

    async def voices(self) -> Sequence[Voice]:
        return self._voices

    def made(self) -> int:
        return self._made

    async def speak(self, say: SpeechRequest) -> AsyncIterator[bytes]:
        letter = self._letter(say.voice)
        for number, clause in enumerate(split(say.text)):
            rank = 0 if say.clause == number == 0 else 1
            samples = await self._sound(letter, clause, say, rank)
            self._made += len(samples)
            if len(samples):
                yield float_to_int16(samples).astype("<i2").tobytes()

    def _letter(self, blend: str) -> str:
        """The language of the blend's first voice. Raises `EngineFailed` for an unknown one."""
        known = {voice.id for voice in self._voices}
        try:
            named = [part.voice for part in parts(blend)]
        except ValueError as error:
            raise EngineFailed(str(error)) from error
        if missing := [name for name in named if name not in known]:
            raise EngineFailed(f"Kokoro has no voice {missing[0][:40]}")
        return named[0][0]

    async def _sound(self, letter: str, text: str, say: SpeechRequest, rank: int = 0) -> Any:
        """float32 samples of a text, which is halved until its phonemes fit into the model."""
        import numpy as np

        spelled = await self._spell(letter, text)
        if not spelled:
            return np.zeros(0, np.float32)
        if len(spelled) > MOST_PHONEMES:
            halves = _halves(text)
            sounds = [await self._sound(letter, half, say, rank) for half in halves]
            return np.concatenate(sounds)
        clause = self._clause(spelled, say)
        return await self._batcher.do(clause, len(spelled), rank)

    async def _spell(self, letter: str, text: str) -> str:
        """misaki's languages share espeak-ng, which speaks one at a time."""
        async with self._spelling:
            return await asyncio.to_thread(self._spelled, letter, text)

    def _spelled(self, letter: str, text: str) -> str:
        if letter not in self._phonemes:
            self._phonemes[letter] = Phonemes(letter)
        return self._phonemes[letter](text)

    def _clause(self, spelled: str, say: SpeechRequest) -> Any:
        from deployments.speaker.kokoro_batch import PhonemeClause

        ids = [self._vocabulary[symbol] for symbol in spelled if symbol in self._vocabulary]
        seed = zlib.crc32(f"{spelled}|{say.voice}|{say.speed}".encode())
        return PhonemeClause(ids, self._pack(say.voice)[len(spelled) - 1], say.speed, seed)

    def _pack(self, blend: str) -> Any:
        """A voice's styles by length, float32 (510, 1, 256); kept for the voices of the model."""
        mixed = sum(part.weight * self._packs[part.voice] for part in parts(blend))
        return mixed

    def _load(self) -> None:
        import torch
        from kokoro import KModel

        from deployments.speaker.kokoro_batch import KokoroBatch

        device = chosen_device(self._device, self._gpu_memory)
        with alone_on_the_gpu():
            if self._gpu_memory and device == "cuda":
                torch.set_float32_matmul_precision("high")
            model = KModel(REPOSITORY, str(self._path / "config.json"), str(self._path / WEIGHTS))
            self._batch = KokoroBatch(model.to(device).eval(), together=device != "cpu")
        self._vocabulary: dict[str, int] = model.vocab
        self._packs = {
            it.id: torch.load(self._path / "voices" / f"{it.id}.pt", weights_only=True)
            for it in self._voices
        }

    def _speak(self, jobs: Jobs[Any, Any]) -> Sequence[Any]:
        """In the batcher's thread."""
        sounds: list[Any] = self._batch.speak([job.item for job in jobs])
        return sounds


def voice(name: str) -> Voice:
    """Kokoro names a voice by its language, its gender and its name: `af_heart`."""
    own = name.partition("_")[2] or name
    return Voice(name, LANGUAGES[name[0]], GENDERS.get(name[1:2], "unknown"), own.capitalize())


def _halves(text: str) -> tuple[str, str]:
    """Cut at the space nearest to the middle, or in the middle."""
    middle = len(text) // 2
    space = text.rfind(" ", 1, middle) if " " in text[1:middle] else middle
    return text[:space], text[space:]
