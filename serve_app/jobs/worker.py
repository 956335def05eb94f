"""Claims jobs and runs them: leases, retries, cancellation, sweeping."""

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import Any

from deployments.decoding import Undecodable
from deployments.fairness import Payer
from deployments.interfaces import DiarizationInput, Speech
from serve_app.admission.ladder import Level
from serve_app.admission.pause import Pause
from serve_app.backoff import backoff_s
from serve_app.config import WorkerConfig
from serve_app.errors import ClientError
from serve_app.jobs.checkpoints import FOLDER as CHECKPOINTS
from serve_app.jobs.database import Database
from serve_app.jobs.diarization import Diarization
from serve_app.jobs.job import ENDED, Job, JobState
from serve_app.jobs.objects import Objects
from serve_app.jobs.persistence import PASSING, persistently
from serve_app.jobs.pipeline import Pipeline
from serve_app.jobs.prepare import Prepared
from serve_app.jobs.queue import MOST_LOSSES, Ending, LeaseLost, Queue
from serve_app.jobs.recogniser import Recogniser, TranscriptionFailed
from serve_app.jobs.result_cache import ResultCache
from serve_app.jobs.search_index import SearchIndex
from serve_app.jobs.storage_keys import private_of
from serve_app.jobs.sweeping import Retention, Sweeping
from serve_app.jobs.webhooks.delivery import Webhooks
from serve_app.lanes.pool import LanePool, LaneTimings, ReplicaSet
from serve_app.limits.known_settings import KnownSettings
from serve_app.limits.settings import TenantSettings
from serve_app.live.driver import watch_lanes
from serve_app.observability import tracing
from serve_app.observability.audit import audited
from serve_app.observability.ids import belonging
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import JOB_SECONDS, JOBS, JOBS_ENDED, JOBS_OLDEST, JOBS_RETRIED
from serve_app.usage.table import tidy

log = logging.getLogger("voxray.jobs")

PROGRESS_S = 1.0
"""Interval at which a job's progress is stored; a new step is stored at once."""

GIVE_WAY_S = 0.5

PASSED = ("engine_timeout", *PASSING)


class Worker:
    """Runs up to `scale.sessions_per_replica` jobs in parallel, while `run` runs; and beside them
    as many of tenants that have none running, who need not wait for the end of others' jobs."""

    def __init__(
        self,
        config: WorkerConfig,
        transcriber: ReplicaSet,
        diarizer: ReplicaSet,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config.jobs
        self._metrics = metrics or Metrics()
        self._engines: dict[str, str | None] = {
            "transcriber": config.transcriber_engine,
            "diarizer": config.diarizer_engine,
        }
        jobs = config.jobs
        self._setup = _setup(config)
        self._audit_file = config.audit_file
        self._database = Database(config.storage.database_url)
        self._objects = Objects(config.storage)
        private = private_of(config.storage)
        self._tenants = TenantSettings(config.tenants)
        self._known_settings = KnownSettings(self._database, self._tenants)
        self._queue = Queue(self._database, jobs.lease_s, private, self._weight_of)
        self._cache = ResultCache(self._database, private)
        self._webhooks = Webhooks(self._database, jobs.webhook, private)
        self._search = SearchIndex(self._database, self._objects, private)
        self._sweeping = Sweeping(
            jobs,
            config.max_session_s,
            Retention(jobs.retention_s, config.history_s, self._retention_s),
            partial(tidy, self._database, config.storage.usage_days),
            self._database,
            self._queue,
            self._cache,
            self._objects,
            self._webhooks,
            self._search,
        )
        listening = LaneTimings(config.transcriber.batch_interval_ms / 1000)
        telling_apart = LaneTimings(config.diarizer.batch_interval_ms / 1000)
        self._transcriber = LanePool(transcriber, listening, Speech)
        self._diarizer = LanePool(diarizer, telling_apart, DiarizationInput)
        watch_lanes(self._metrics, "Transcriber", self._transcriber)
        watch_lanes(self._metrics, "Diarizer", self._diarizer)
        self._pause = Pause()
        self._recogniser = Recogniser(
            self._transcriber, jobs.windows_at_once, jobs.window_timeout_s, self._pause.over
        )
        self._diarization = Diarization(self._diarizer, config.diarizer.timeout_s)
        for state in ENDED:
            self._metrics.begin(JOBS_ENDED, state.value)
        self._free = jobs.scale.sessions_per_replica
        self.load = 0
        """Jobs of all workers that wait or run, as last counted."""

    async def run(self) -> None:
        """Runs until cancelled; its jobs then go back to the queue."""
        try:
            async with audited(self._audit_file):
                await self._run_all()
        finally:
            await self._database.close()

    async def _run_all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._transcriber.run())
            tasks.create_task(self._diarizer.run())
            tasks.create_task(self._webhooks.run())
            tasks.create_task(self._sweeping.run())
            tasks.create_task(self._known_settings.run())
            tasks.create_task(self._count())
            tasks.create_task(self._give_way())
            tasks.create_task(self._work(tasks, beside=False))
            tasks.create_task(self._work(tasks, beside=True))

    async def _work(self, tasks: asyncio.TaskGroup, beside: bool) -> None:
        """One claims for all places: their number must not multiply the polls."""
        places = asyncio.Semaphore(self._config.scale.sessions_per_replica)
        while True:
            await places.acquire()
            if job := await self._claim(beside):
                work = tasks.create_task(self._run_in_place(job, beside))
                work.add_done_callback(lambda _: places.release())
            else:
                places.release()

    async def _run_in_place(self, job: Job, beside: bool) -> None:
        self._free -= not beside
        await self._run_job(job)
        self._free += not beside

    async def _claim(self, beside: bool) -> Job | None:
        """None after a while without one. `beside`: only while all other places have work."""
        try:
            wanted = self.load and not (beside and self._free)
            if wanted and (job := await self._queue.claim(beside)):
                return job
        except ClientError as error:
            log.warning("claim_failed", extra={"code": error.code})
        await asyncio.sleep(self._config.poll_s)
        return None

    def _weight_of(self, tenant: str) -> float:
        return self._tenants.of(tenant).weight

    def _retention_s(self, tenant: str) -> float:
        return self._tenants.of(tenant).retention_s

    async def _give_way(self) -> None:
        """Send no windows while an ingress replica has too much to do."""
        while True:
            self._pause.set(self._transcriber.level >= Level.RECORDINGS_PAUSE)
            await asyncio.sleep(GIVE_WAY_S)

    async def _count(self) -> None:
        while True:
            with contextlib.suppress(
                ClientError
            ):  # the database is unavailable: keep the last counts
                counts = await self._queue.counts()
                self.load = sum(counts.values())
                for state, count in counts.items():
                    self._metrics.set(JOBS, count, state.value)
                oldest_s = await self._queue.oldest_s() if counts[JobState.QUEUED] else 0.0
                self._metrics.set(JOBS_OLDEST, oldest_s)
            await asyncio.sleep(self._config.poll_s)

    async def _run_job(self, job: Job) -> None:
        with belonging(job=job.id, tenant=job.tenant), tracing.of_job(job.id):
            await self._run_claimed(job)

    async def _run_claimed(self, job: Job) -> None:
        """Run the job and store its outcome, also after failures."""
        log.info("job_claimed", extra={"attempt": job.attempts + 1})
        pipeline = self._pipeline(job)
        work = asyncio.create_task(self._do(job, pipeline))
        keeper = asyncio.create_task(self._keep_lease(job, pipeline))
        try:
            await asyncio.wait({work, keeper}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _cancelled(work, keeper)
            await self._release(job)
            raise
        stopped = keeper.done()
        await _cancelled(keeper, *([work] if stopped else []))
        try:
            ending = keeper.result() if stopped else work.result()
            if ending:
                await self._end(job, ending, self._changes(pipeline))
        except LeaseLost:
            log.warning("job_lease_lost")

    async def _do(self, job: Job, pipeline: Pipeline) -> Ending | None:
        """How the job ends; None if it will be retried."""
        if job.state is JobState.CANCELLING:
            return Ending(JobState.CANCELLED)
        if job.losses >= MOST_LOSSES:
            reason = f"the job crashed {job.losses} workers without progress"
            return Ending(JobState.FAILED, "worker_lost_twice", reason)
        try:
            return await self._compute(job, pipeline)
        except Exception as error:
            return await self._after(job, error)

    async def _compute(self, job: Job, pipeline: Pipeline) -> Ending:
        fingerprint: str | None = None
        cached = False

        async def known(prepared: Prepared) -> bytes | None:
            nonlocal fingerprint, cached
            if not self._config.cache_entries:
                return None
            fingerprint = pipeline.fingerprint(prepared)
            same = await self._cache.remembered(job.tenant, fingerprint)
            body = await self._objects.read(same, "result") if same else None
            cached = body is not None
            return body

        result = await pipeline.run(known)
        await persistently(lambda: self._objects.put(job, "result", result))
        return Ending(
            JobState.COMPLETED, fingerprint=None if cached else fingerprint, cached=cached
        )

    async def _after(self, job: Job, error: Exception) -> Ending | None:
        """Fail the job or retry it, depending on the error."""
        if isinstance(error, ExceptionGroup):
            return await self._after(job, error.exceptions[0])
        match error:
            case Undecodable():
                return Ending(JobState.FAILED, error.code, str(error))
            case TranscriptionFailed():
                return await self._try_again(job, error.code, str(error))
            case ClientError() if error.code in PASSED:
                return await self._try_again(job, error.code, str(error))
            case ClientError():
                return Ending(JobState.FAILED, error.code, str(error))
            case LeaseLost():
                raise error
        log.error("job_failed", exc_info=error)
        reason = "Internal error; see the server log"
        return await self._try_again(job, "internal_error", reason)

    async def _try_again(self, job: Job, code: str, reason: str) -> Ending | None:
        """Retry with backoff, up to `max_attempts` attempts."""
        attempts = job.attempts + 1
        if attempts >= self._config.max_attempts:
            return Ending(JobState.FAILED, code, reason)
        delay_s = backoff_s(self._config.retry_backoff_s, attempts)
        log.warning("job_retried", extra={"code": code, "delay_s": round(delay_s, 1)})
        self._metrics.count(JOBS_RETRIED, code)
        await persistently(lambda: self._queue.requeue(job, delay_s, attempts))
        return None

    async def _keep_lease(self, job: Job, pipeline: Pipeline) -> Ending:
        """Renew the lease and store progress, each step as it begins, until the job is cancelled.
        Raises `LeaseLost`."""
        every_s = min(PROGRESS_S, self._config.lease_s / 4)
        stepped = asyncio.Event()
        pipeline.report.on_step = stepped.set
        changes: dict[str, Any] = {"step": pipeline.report.step}
        while True:
            with contextlib.suppress(ClientError):  # the database is unavailable: go on
                if await self._queue.renew(job, **changes) is JobState.CANCELLING:
                    return Ending(JobState.CANCELLED)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stepped.wait(), every_s)
            stepped.clear()
            changes = self._changes(pipeline)

    def _changes(self, pipeline: Pipeline) -> dict[str, Any]:
        return {"engine": self._engines["transcriber"], **pipeline.report.changes()}

    async def _end(self, job: Job, ending: Ending, changes: dict[str, Any]) -> None:
        """Raises `LeaseLost`."""
        await persistently(lambda: self._queue.end(job, ending, **changes))
        run_s = max(0.0, time.time() - (job.started or job.created))
        fields = {"state": ending.state.value, "code": ending.error_code, "run_s": round(run_s, 1)}
        log.info("job_ended", extra=fields)
        self._metrics.count(JOBS_ENDED, ending.state.value)
        self._metrics.observe(JOB_SECONDS, run_s)
        if ending.state is JobState.COMPLETED:
            await persistently(lambda: self._search.index(job))
        if ending.state is JobState.CANCELLED:
            await persistently(lambda: self._objects.delete(f"{job.tenant}/{job.id}"))
        else:
            await persistently(lambda: self._objects.delete(job.path(CHECKPOINTS)))

    async def _release(self, job: Job) -> None:
        """This worker stops: another one can take the job at once."""
        with contextlib.suppress(ClientError, LeaseLost):
            await self._queue.requeue(job, 0.0, job.attempts)
            log.info("job_released")

    def _pipeline(self, job: Job) -> Pipeline:
        engines = self._engines if job.options.diarize else {**self._engines, "diarizer": None}
        payer = Payer(job.tenant, self._weight_of(job.tenant))
        return Pipeline(
            job,
            self._objects,
            self._recogniser.of(payer),
            self._diarization.of(payer),
            self._config,
            engines,
            self._setup,
        )


def _setup(config: WorkerConfig) -> str:
    """All settings that change the result of a recording."""
    leaves = (config.transcriber, config.diarizer)
    own = [
        leaf.model_dump_json(exclude={"scale", "batch_interval_ms", "timeout_s"}) for leaf in leaves
    ]
    return "\n".join((config.transcriber_engine, config.diarizer_engine, *own))


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
