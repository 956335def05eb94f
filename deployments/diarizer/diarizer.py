"""Lanes in front of a diarizer engine: pieces of recordings in, speaker turns out. Independent of
the engine."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    DiarizationInput,
    DiarizationResult,
    DiarizerEngine,
    SpeakerCount,
    SpeakerTurn,
)
from deployments.lanes import Lane, LaneModel, reporting_failures
from deployments.outbox import Outbox


class _Recording:
    """A recording's audio that waits for the engine; its client bounds how much."""

    def __init__(self, session: int, out: Outbox[DiarizationResult]) -> None:
        self._session = session
        self._out = out
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._until = 0
        self.task: asyncio.Task[None]

    def put(self, piece: DiarizationInput) -> None:
        self._pieces.put_nowait(piece.pcm)
        if piece.ended:
            self._pieces.put_nowait(None)

    async def audio(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
            self._until += len(piece) // BYTES_PER_SAMPLE
            self.report()

    def report(
        self, turns: tuple[SpeakerTurn, ...] = (), final: bool = False, failure: str | None = None
    ) -> None:
        self._out.put(DiarizationResult(self._session, self._until, turns, final, failure))


Here = Lane[_Recording, DiarizationResult]


class Diarizer(LaneModel[DiarizationInput, _Recording, DiarizationResult]):
    """Any `DiarizerEngine`, with one task per recording."""

    def __init__(self, engine: DiarizerEngine) -> None:
        super().__init__(engine.start, engine.stop)
        self.engine = engine

    async def take(
        self, here: Here, batch: Sequence[DiarizationInput]
    ) -> Sequence[DiarizationResult]:
        """A recording begins with its first piece."""
        for piece in batch:
            recording = here.sessions.get(piece.session) or self._begin(here, piece)
            recording.put(piece)
        return ()

    async def drop(self, work: Sequence[_Recording]) -> None:
        for recording in work:
            recording.task.cancel()

    def _begin(self, here: Here, first: DiarizationInput) -> _Recording:
        recording = here.sessions[first.session] = _Recording(first.session, here.out)
        recording.task = asyncio.create_task(self._run(recording, first.speakers))
        return recording

    async def _run(self, recording: _Recording, speakers: SpeakerCount) -> None:
        """Owned by the recording; ends with the last answer, or is cancelled."""
        with reporting_failures(lambda reason: recording.report(failure=reason)):
            turns = await self.engine.diarize(recording.audio(), speakers)
            recording.report(tuple(turns), True)
