"""Diarizes a recording over a lane: audio in order, and at most `AHEAD` unprocessed."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from deployments.fairness import NOBODY, Payer
from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    RATE,
    DiarizationResult,
    SpeakerCount,
    SpeakerTurn,
)
from serve_app.errors import ClientError
from serve_app.jobs.recogniser import TranscriptionFailed
from serve_app.lanes.lane import LaneStream
from serve_app.lanes.pool import LanePool

AHEAD = 60 * RATE
"""Samples that may be sent before the diarizer has processed them."""

Open = Callable[[], AsyncGenerator[bytes]]
"""Opens the recording at its beginning: pieces of 16 kHz mono pcm_s16le."""


class _ReplicaLost(Exception):
    """The replica was lost: another one gets the recording from its beginning."""


class _Recording:
    """One recording as a stream on a lane."""

    def __init__(self, lanes: LanePool, timeout_s: float, payer: Payer) -> None:
        self._timeout_s = timeout_s
        self._moved = asyncio.Event()
        self._attachments = 0
        self._answer: DiarizationResult | None = None
        self._quarantined = False
        self.sent = 0
        self.stream = LaneStream(lanes, self, payer, batch=True)
        lanes.attach(self.stream)

    def attached(self) -> None:
        self._attachments += 1
        self._moved.set()

    def unserved(self) -> None:
        """It waits, for `timeout_s` at most."""

    def answered(self, answer: DiarizationResult) -> None:
        self._answer = answer
        self._moved.set()

    def busy(self) -> bool:
        return not (self._answer and (self._answer.final or self._answer.failure))

    def quarantined(self) -> None:
        self._quarantined = True
        self._moved.set()

    async def begin(self) -> None:
        """Wait for a replica, which gets the recording from its beginning."""
        while not self.stream.lane:
            await self._wait()
        self._answer, self.sent, self._begun = None, 0, self._attachments
        self._moved.clear()

    async def put(self, pcm: bytes, ended: bool, speakers: SpeakerCount) -> None:
        """Raises `_ReplicaLost`."""
        self._check()  # first: a new replica must get the beginning
        self.stream.put((pcm, ended, speakers), urgent=ended)
        self.sent += len(pcm) // BYTES_PER_SAMPLE
        while self.sent - (self._answer.until if self._answer else 0) > AHEAD:
            await self._wait()
            self._check()

    async def turns(self) -> tuple[SpeakerTurn, ...]:
        """Raises `_ReplicaLost`."""
        while not (self._answer and self._answer.final):
            self._check()
            await self._wait()
        return self._answer.turns

    def _check(self) -> None:
        if self._quarantined:
            reason = "this recording crashed the diarizer twice"
            raise ClientError("request_quarantined", reason)
        if self._answer and self._answer.failure:
            raise TranscriptionFailed(self._answer.failure)
        if self._attachments != self._begun:
            raise _ReplicaLost

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._moved.wait()
        except TimeoutError as error:
            reason = f"the diarizer sent no answer for {self._timeout_s:g} s"
            raise TranscriptionFailed(reason, "engine_timeout") from error
        self._moved.clear()


class Diarization:
    """Finds the speakers of recordings."""

    def __init__(self, lanes: LanePool, timeout_s: float) -> None:
        self._lanes = lanes
        self._timeout_s = timeout_s
        self._payer = NOBODY

    def of(self, payer: Payer) -> "Diarization":
        """The same, for the recordings of one tenant."""
        its = copy.copy(self)
        its._payer = payer
        return its

    async def turns(
        self, open_: Open, speakers: SpeakerCount, on_progress: Callable[[int], None]
    ) -> list[SpeakerTurn]:
        """The turns of all speakers. Raises `TranscriptionFailed` if the engine fails."""
        recording = _Recording(self._lanes, self._timeout_s, self._payer)
        try:
            while True:
                await recording.begin()
                try:
                    await self._feed(recording, open_(), speakers, on_progress)
                    return list(await recording.turns())
                except _ReplicaLost:
                    continue
        finally:
            recording.stream.leave()

    async def _feed(
        self,
        recording: _Recording,
        pieces: AsyncGenerator[bytes],
        speakers: SpeakerCount,
        on_progress: Callable[[int], None],
    ) -> None:
        async with aclosing(pieces):
            async for pcm in pieces:
                await recording.put(pcm, False, speakers)
                on_progress(recording.sent)
        await recording.put(b"", True, speakers)
