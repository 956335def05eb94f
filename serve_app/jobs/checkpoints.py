"""What a job's stages have stored, so that another worker can continue from there."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from deployments.interfaces import SpeakerTurn
from serve_app.errors import ClientError
from serve_app.jobs.job import Job
from serve_app.jobs.joining import Transcribed
from serve_app.jobs.objects import Objects, Stored
from serve_app.jobs.persistence import persistently
from serve_app.jobs.playback import INDEX, SOUND, Index
from serve_app.jobs.prepare import Prepared
from serve_app.jobs.report import Report

AUDIO = "audio"
FOLDER = "checkpoints"
"""Its contents are deleted when a job has ended."""

PREPARED, TURNS = f"{FOLDER}/decoded", f"{FOLDER}/turns"
WINDOWS = f"{FOLDER}/windows"

LiveRecording = TypeVar("LiveRecording")


def window_name(number: int) -> str:
    return f"{WINDOWS}/{number:06}"


class Checkpoints:
    """One job's checkpoints; writes are retried until they succeed. Raises `ClientError`."""

    def __init__(self, job: Job, objects: Objects, report: Report) -> None:
        self._job = job
        self._objects = objects
        self._report = report

    async def recording(self) -> Stored:
        """As it was uploaded."""
        return await self._stored(AUDIO)

    async def speech(self) -> Stored:
        """The decoded recording, in blocks."""
        return await self._stored(SOUND)

    async def put_speech(self, blocks: AsyncIterator[bytes]) -> None:
        """Raises what `blocks` raises, too; then nothing is stored."""
        await self._objects.put_stream(self._job.path(SOUND), self._job.sealed_key, blocks)

    async def put_playback(self, index: Index) -> None:
        """What makes the blocks the playback copy, which stays."""
        await self._objects.put(self._job, INDEX, msgspec.msgpack.encode(index))

    async def prepared(self) -> Prepared | None:
        return await self._read(PREPARED, Prepared)

    async def turns(self) -> list[SpeakerTurn] | None:
        return await self._read(TURNS, list[SpeakerTurn])

    async def windows(self) -> dict[int, Transcribed]:
        """Those that have been transcribed, by number."""
        known = {}
        for name, _ in await self._objects.names(self._job.path(WINDOWS)):
            number = int(name.rsplit("/", 1)[1])
            if window := await self._read(window_name(number), Transcribed):
                known[number] = window
        return known

    async def put(self, name: str, value: Any) -> None:
        body = msgspec.msgpack.encode(value)
        await persistently(lambda: self._objects.put(self._job, name, body))
        self._report.checkpoints += 1

    async def _read(self, name: str, type_: type[LiveRecording]) -> LiveRecording | None:
        body = await self._objects.read(self._job, name)
        return msgspec.msgpack.decode(body, type=type_) if body else None

    async def _stored(self, name: str) -> Stored:
        stored = await self._objects.open(self._job, name)
        if stored is None:
            raise ClientError("storage_damaged", "the stored recording is missing")
        return stored
