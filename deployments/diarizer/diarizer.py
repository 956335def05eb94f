"""Lanes in front of a diarizer engine: recordings in, in pieces; their turns out. Knows no engine
by name."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    DiarizationInput,
    DiarizationResult,
    DiarizerEngine,
    EngineDied,
    EngineFailed,
    SpeakerCount,
)
from deployments.once import Once
from deployments.outbox import Outbox

log = logging.getLogger("voxray.diarizer")


class _Recording:
    """One recording's audio on its way into the engine; its client bounds what waits here."""

    def __init__(self, session: int, out: Outbox[DiarizationResult]) -> None:
        self._session = session
        self._out = out
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.until = 0
        self.task: asyncio.Task[None] | None = None

    def put(self, voices: DiarizationInput) -> None:
        self._pieces.put_nowait(voices.pcm)
        if voices.ended:
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


class Diarizer:
    """Any `DiarizerEngine`, a task a recording."""

    def __init__(self, engine: DiarizerEngine) -> None:
        self.engine = engine
        self._lanes: dict[str, _Lane] = {}
        self._load = Once(engine.start)

    async def start(self) -> None:
        """Load the engine, once; raises what the engine raises when it cannot load."""
        await self._load()

    async def stop(self) -> None:
        await self.engine.stop()

    async def listen(self, lane: str) -> AsyncIterator[list[DiarizationResult]]:
        """Open a lane and stream its answers; the first item is empty and says: open."""
        await self.start()
        here = self._lanes[lane] = _Lane()
        try:
            yield []
            while True:
                yield await here.out.take()
        finally:
            del self._lanes[lane]
            _cancel(here, list(here.recordings))

    async def exchange(
        self, lane: str, batch: Sequence[DiarizationInput], left: Sequence[int]
    ) -> None:
        """A recording begins with its first piece, and is forgotten when its client leaves."""
        here = self._lanes[lane]
        for voices in batch:
            recording = here.recordings.get(voices.session)
            if recording is None:
                recording = self._begin(here, voices)
            recording.put(voices)
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
            return  # the replica goes, and its client asks another
        except EngineFailed as failure:
            here.out.put(DiarizationResult(session, recording.until, failure=str(failure)))
        except Exception:  # nobody above would see it, and the client would wait for ever
            log.exception("diarizing a recording failed")
            here.out.put(DiarizationResult(session, recording.until, failure="the engine failed"))


def _cancel(here: _Lane, sessions: Sequence[int]) -> None:
    for session in sessions:
        recording = here.recordings.pop(session, None)
        if recording and recording.task:
            recording.task.cancel()
