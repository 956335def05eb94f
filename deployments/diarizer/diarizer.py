"""Lanes in front of a diarizer engine: pieces of recordings in, speaker turns out. Independent of
the engine."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    ENGINE_FAILED,
    DiarizationInput,
    DiarizationResult,
    DiarizerEngine,
    EngineDied,
    EngineFailed,
    SpeakerCount,
)
from deployments.lanes import LaneModel
from deployments.outbox import Outbox

log = logging.getLogger("voxray.diarizer")


class _Recording:
    """A recording's audio that waits for the engine; its client bounds how much."""

    def __init__(self, session: int, out: Outbox[DiarizationResult]) -> None:
        self._session = session
        self._out = out
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.until = 0
        self.task: asyncio.Task[None] | None = None

    def put(self, piece: DiarizationInput) -> None:
        self._pieces.put_nowait(piece.pcm)
        if piece.ended:
            self._pieces.put_nowait(None)

    async def audio(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece
            self.until += len(piece) // BYTES_PER_SAMPLE
            self._out.put(DiarizationResult(self._session, self.until))


class _Lane:
    def __init__(self) -> None:
        self.out: Outbox[DiarizationResult] = Outbox()
        self.recordings: dict[int, _Recording] = {}


class Diarizer(LaneModel[_Lane]):
    """Any `DiarizerEngine`, with one task per recording."""

    def __init__(self, engine: DiarizerEngine) -> None:
        super().__init__()
        self.engine = engine

    async def load(self) -> None:
        await self.engine.start()

    async def stop(self) -> None:
        await self.engine.stop()

    def new_lane(self) -> _Lane:
        return _Lane()

    async def close_lane(self, name: str, lane: _Lane) -> None:
        _cancel(lane, list(lane.recordings))

    async def exchange(
        self, lane: str, batch: Sequence[DiarizationInput], left: Sequence[int]
    ) -> None:
        """A recording begins with its first piece and is dropped when its client leaves."""
        here = self._lanes[lane]
        for piece in batch:
            recording = here.recordings.get(piece.session)
            if recording is None:
                recording = self._begin(here, piece)
            recording.put(piece)
        _cancel(here, left)

    def _begin(self, here: _Lane, first: DiarizationInput) -> _Recording:
        recording = _Recording(first.session, here.out)
        here.recordings[first.session] = recording
        work = self._run(here, first.session, recording, first.speakers)
        recording.task = asyncio.create_task(work)
        return recording

    async def _run(
        self, here: _Lane, session: int, recording: _Recording, speakers: SpeakerCount
    ) -> None:
        """Owned by `recordings`; ends with the last answer, or is cancelled."""
        try:
            turns = await self.engine.diarize(recording.audio(), speakers)
            here.out.put(DiarizationResult(session, recording.until, tuple(turns), True))
        except EngineDied:
            return  # the replica ends; its client tries another
        except EngineFailed as failure:
            here.out.put(DiarizationResult(session, recording.until, failure=str(failure)))
        except Exception:  # nothing else reports it, and the client would wait forever
            log.exception("diarizing a recording failed")
            here.out.put(DiarizationResult(session, recording.until, failure=ENGINE_FAILED))


def _cancel(here: _Lane, sessions: Sequence[int]) -> None:
    for session in sessions:
        recording = here.recordings.pop(session, None)
        if recording and recording.task:
            recording.task.cancel()
