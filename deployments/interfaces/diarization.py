"""Diarization: a recording in, speaker turns out."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from deployments.interfaces.engine import Options


class SpeakerCount(NamedTuple):
    """How many people speak, at least and at most."""

    least: int = 1
    most: int = 20


class SpeakerTurn(NamedTuple):
    """One person speaks, in samples of the recording."""

    speaker: int
    """0 is the first to speak."""
    start: int
    end: int


class DiarizationInput(NamedTuple):
    """The next piece of a recording, in order."""

    session: int
    pcm: bytes
    ended: bool = False
    speakers: SpeakerCount = SpeakerCount()


class DiarizationResult(NamedTuple):
    """The diarizer has processed a recording up to sample `until`; the last result is `final`."""

    session: int
    until: int
    turns: tuple[SpeakerTurn, ...] = ()
    final: bool = False
    failure: str | None = None


class DiarizerEngine(Protocol):
    """Finds who spoke when. `diarize` pulls the recording (16 kHz mono pcm, in pieces of any size)
    and returns its turns in order. Cancelling it stops the model. Raises `EngineFailed`."""

    name: str
    options: Options
    """SPEAKERS, if it supports that."""

    async def start(self) -> None: ...

    async def diarize(
        self, audio: AsyncIterator[bytes], speakers: SpeakerCount
    ) -> Sequence[SpeakerTurn]: ...

    async def stop(self) -> None: ...
