"""Recorded live sessions: their finals become the result of a job."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio

from deployments.interfaces import RATE
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.job import Job, JobOptions, JobState
from serve_app.jobs.persistence import persistently
from serve_app.jobs.quality import Quality
from serve_app.jobs.queue import Ending, LeaseLost, Submitted, new_id
from serve_app.jobs.result import Result, StageResults, result
from serve_app.jobs.submission import Jobs
from serve_app.live.events import Event
from serve_app.live.recording import Collector

log = logging.getLogger("voxray.jobs")

Refuse = Callable[[ClientError], None]


class _Name(NamedTuple):
    tenant: str
    id: str


class LiveRecording:
    """Collects one session's finals until it ends."""

    def __init__(self, live_recordings: "LiveRecordings", owner: Principal, id_: str) -> None:
        self._live_recordings = live_recordings
        self._name = _Name(owner.tenant, id_)
        self._collector = Collector()

    def begin(self, refuse: Refuse) -> None:
        """`refuse` is called if no such transcription waits for its session."""
        self._live_recordings.check(self._name, refuse)

    def on_event(self, event: Event) -> None:
        self._collector.on_event(event)

    def ended(self, audio_ms: int) -> None:
        self._live_recordings.save(self._name, self._collector, audio_ms)


class LiveRecordings:
    """Creates transcriptions for live sessions and stores their results, while `run` runs."""

    def __init__(self, jobs: Jobs, engine: str) -> None:
        self._jobs = jobs
        self._engine = engine
        self._begun: asyncio.Queue[tuple[_Name, Refuse]] = asyncio.Queue()
        self._ended: asyncio.Queue[tuple[_Name, Collector, int]] = asyncio.Queue()
        """Both are bounded by the limit on sessions."""

    async def open(self, owner: Principal, options: JobOptions) -> Job:
        """A transcription that waits for its session. Raises `ClientError`."""
        id_ = new_id()
        sealed = self._jobs.objects.new_key(f"{owner.tenant}/{id_}")
        asked = Submitted(
            id_, owner.tenant, options, "live", "", 0, "", None, sealed, "live", owner.key
        )
        job, _ = await self._jobs.queue.submit(asked, self._jobs.config.max_waiting)
        return job

    def recording(self, owner: Principal, id_: str) -> LiveRecording:
        """The recording of its session."""
        return LiveRecording(self, owner, id_)

    def check(self, name: _Name, refuse: Refuse) -> None:
        self._begun.put_nowait((name, refuse))

    def save(self, name: _Name, collector: Collector, audio_ms: int) -> None:
        self._ended.put_nowait((name, collector, audio_ms))

    async def stored(self, within_s: float) -> None:
        """Returns when the results of all ended sessions are stored, or after `within_s`."""
        with anyio.move_on_after(within_s):
            await self._ended.join()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_all())
            tasks.create_task(self._write_all())

    async def _check_all(self) -> None:
        while True:
            name, refuse = await self._begun.get()
            try:
                await self._waiting(name)
            except ClientError as error:
                if (
                    error.code == "job_not_found"
                ):  # else the database is unavailable: `_write` tries again
                    refuse(error)

    async def _write_all(self) -> None:
        while True:
            name, collector, audio_ms = await self._ended.get()
            try:
                await self._write(name, collector, audio_ms)
            except (ClientError, LeaseLost) as error:
                fields = {"job": name.id, "tenant": name.tenant, "cause": type(error).__name__}
                log.warning("live_recording_lost", extra=fields)
            finally:
                self._ended.task_done()

    async def _write(self, name: _Name, collector: Collector, audio_ms: int) -> None:
        job = await persistently(lambda: self._waiting(name))
        body = _result(collector, audio_ms, self._engine).model_dump_json().encode()
        await persistently(lambda: self._jobs.objects.put(job, "result", body))
        changes: dict[str, Any] = {"engine": self._engine, "duration_s": audio_ms / 1000}
        ending = Ending(JobState.COMPLETED)
        try:
            await persistently(lambda: self._jobs.queue.end(job, ending, **changes))
            await persistently(lambda: self._jobs.search.index(job))
        except LeaseLost:  # it was deleted meanwhile
            await self._jobs.objects.delete(f"{name.tenant}/{name.id}")
            raise

    async def _waiting(self, name: _Name) -> Job:
        """The transcription, if it still waits for its session. Raises `ClientError`."""
        job = await self._jobs.queue.get(name.tenant, name.id)
        if job.kind != "live" or job.ended:
            reason = f"{name.id[:80]!r} is not waiting for a session; this session is not recorded"
            raise ClientError("job_not_found", reason)
        return job


def _result(collector: Collector, audio_ms: int, engine: str) -> Result:
    found = StageResults([it.spoken for it in collector.words], collector.language, None, None)
    engines = {"transcriber": engine, "diarizer": None}
    whole = result(found, Quality.unknown(audio_ms * RATE // 1000), [], engines, True)
    whole.quality = {}
    return whole
