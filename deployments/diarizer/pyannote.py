"""pyannote.audio's pipeline (https://github.com/pyannote/pyannote-audio), version 4.

It needs the whole recording, four bytes per sample, 230 MB per hour; one recording at a time.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.interfaces import RATE, EngineFailed, Option, SpeakerCount, SpeakerTurn


class Pyannote:
    """Implements `DiarizerEngine`. `model` is a folder or a name on the hub; its weights are
    gated there: accept the terms, and put a token into the variable `token_variable`."""

    name = "pyannote"
    options = frozenset({Option.SPEAKERS})

    def __init__(self, model: str, token_variable: str, device: str) -> None:
        self._model = model
        self._token = os.environ.get(token_variable) or None
        self._device = device
        self._pipeline: Any = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Raises `EngineFailed` when the pipeline cannot be loaded."""
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        import torch
        from pyannote.audio import Pipeline

        folder = str(Path(self._model).expanduser())
        here = folder if Path(folder).exists() else self._model
        self._pipeline = Pipeline.from_pretrained(here, token=self._token)
        if self._pipeline is None:
            raise EngineFailed(
                f"{self._model} cannot be loaded: accept its terms on the hub and set a token"
            )
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline.to(torch.device(wanted if self._device == "auto" else self._device))

    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> Sequence[SpeakerTurn]:
        pcm = bytearray()
        async for piece in audio:
            pcm += piece
        async with self._lock:
            return await asyncio.to_thread(self._diarize, pcm, speakers)

    def _diarize(self, pcm: bytearray, speakers: SpeakerCount) -> list[SpeakerTurn]:
        import torch

        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
        waveform = {"waveform": torch.from_numpy(samples)[None], "sample_rate": RATE}
        output = self._pipeline(waveform, min_speakers=speakers.least, max_speakers=speakers.most)
        return turns_of(getattr(output, "speaker_diarization", output))

    async def stop(self) -> None:
        self._pipeline = None


def turns_of(annotation: Any) -> list[SpeakerTurn]:
    """The turns of pyannote's `Annotation`, whose times are in seconds."""
    names: dict[str, int] = {}
    return [
        SpeakerTurn(
            names.setdefault(name, len(names)), round(turn.start * RATE), round(turn.end * RATE)
        )
        for turn, _, name in annotation.itertracks(yield_label=True)
    ]
