"""Kokoro-82M: all its voices, blends of them, and batches across all requests.

Clauses of all requests wait until the model is free. The first clause of a reply goes first,
because its listener waits in silence.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from deployments.audio import float_to_int16
from deployments.batcher import Batcher, Jobs
from deployments.gpu import chosen_device, exclusive_gpu
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
        self._spell_lock = asyncio.Lock()
        self._packs: dict[str, Any] = {}
        self._voices: tuple[Voice, ...] = ()
        self._generated = 0

    async def start(self) -> None:
        """Raises `EngineFailed` when the model cannot be loaded."""
        files = sorted(self._path.glob("voices/*.pt"))
        self._voices = tuple(voice(file.stem) for file in files if file.stem[0] in LANGUAGES)
        if not self._voices:
            raise EngineFailed(f"{self._path} contains no Kokoro model with voices")
        try:
            await asyncio.to_thread(self._load)
        except Exception as error:  # PyTorch raises many kinds
            raise EngineFailed(f"Kokoro cannot be loaded from {self._path}: {error}") from error
        await self._sound("a", "Hello there.", SpeechRequest(0, "", self._voices[0].id))

    async def stop(self) -> None:
        await self._batcher.stop()

    async def voices(self) -> Sequence[Voice]:
        return self._voices

    def generated(self) -> int:
        return self._generated

    async def speak(self, request: SpeechRequest) -> AsyncIterator[bytes]:
        letter = self._letter(request.voice)
        for number, clause in enumerate(split(request.text)):
            rank = 0 if request.clause == number == 0 else 1
            samples = await self._sound(letter, clause, request, rank)
            self._generated += len(samples)
            if len(samples):
                yield float_to_int16(samples).astype("<i2").tobytes()

    def _letter(self, blend: str) -> str:
        """The language of the blend's first voice. Raises `EngineFailed` for an unknown one."""
        known = {voice.id for voice in self._voices}
        try:
            names = [part.voice for part in parts(blend)]
        except ValueError as error:
            raise EngineFailed(str(error)) from error
        if missing := [name for name in names if name not in known]:
            raise EngineFailed(
                f"Kokoro has no voice {missing[0][:40]!r}; GET /v1/audio/voices lists them"
            )
        return names[0][0]

    async def _sound(self, letter: str, text: str, request: SpeechRequest, rank: int = 0) -> Any:
        """float32 samples of a text. A text with too many phonemes is halved until they fit."""
        import numpy as np

        spelled = await self._spell(letter, text)
        if not spelled:
            return np.zeros(0, np.float32)
        if len(spelled) > MOST_PHONEMES:
            halves = _halves(text)
            sounds = [await self._sound(letter, half, request, rank) for half in halves]
            return np.concatenate(sounds)
        clause = self._clause(spelled, request)
        return await self._batcher.do(clause, len(spelled), rank)

    async def _spell(self, letter: str, text: str) -> str:
        """One at a time, because misaki's languages share espeak-ng, which is not thread-safe."""
        async with self._spell_lock:
            return await asyncio.to_thread(self._spelled, letter, text)

    def _spelled(self, letter: str, text: str) -> str:
        if letter not in self._phonemes:
            self._phonemes[letter] = Phonemes(letter)
        return self._phonemes[letter](text)

    def _clause(self, spelled: str, request: SpeechRequest) -> Any:
        from deployments.speaker.kokoro_batch import PhonemeClause

        ids = [self._vocabulary[symbol] for symbol in spelled if symbol in self._vocabulary]
        seed = zlib.crc32(f"{spelled}|{request.voice}|{request.speed}".encode())
        return PhonemeClause(ids, self._pack(request.voice)[len(spelled) - 1], request.speed, seed)

    def _pack(self, blend: str) -> Any:
        """A voice's styles by number of phonemes: float32 (510, 1, 256)."""
        return sum(part.weight * self._packs[part.voice] for part in parts(blend))

    def _load(self) -> None:
        import torch
        from kokoro import KModel

        from deployments.speaker.kokoro_batch import KokoroBatch

        device = chosen_device(self._device, self._gpu_memory)
        with exclusive_gpu():
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
    """Kokoro's names are a letter for the language, one for the gender, and a name: `af_heart`."""
    given = name.partition("_")[2] or name
    return Voice(name, LANGUAGES[name[0]], GENDERS.get(name[1:2], "unknown"), given.capitalize())


def _halves(text: str) -> tuple[str, str]:
    """Cut at the last space before the middle, or in the middle."""
    middle = len(text) // 2
    space = text.rfind(" ", 1, middle) if " " in text[1:middle] else middle
    return text[:space], text[space:]
