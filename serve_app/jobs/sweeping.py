"""Deletes old jobs, old cache entries, old histories, and objects that no job has."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from serve_app.config import JobsConfig
from serve_app.conversation.histories import forget_histories
from serve_app.errors import ClientError
from serve_app.jobs.database import Database
from serve_app.jobs.deletion import Deletion
from serve_app.jobs.job import JobState
from serve_app.jobs.objects import OF_A_JOB, Objects
from serve_app.jobs.queue import Ending, LeaseLost, Queue
from serve_app.jobs.result_cache import ResultCache
from serve_app.jobs.resumable import ResumableUploads
from serve_app.jobs.retention import Kept
from serve_app.jobs.search_index import SearchIndex
from serve_app.jobs.webhooks.delivery import Webhooks
from serve_app.observability.audit import audit

log = logging.getLogger("voxray.jobs")

SWEEP_S = 60.0
LOST_S = 300.0
"""Time after the longest possible session after which an open one has lost its ingress."""

ORPHAN_S = 7200.0
"""An object without a job for this long belongs to an aborted upload."""

SWEPT_AT_ONCE = 500


class Retention(NamedTuple):
    """How long data is kept, in seconds."""

    jobs: float
    histories: float
    of_tenant: Callable[[str], float] = lambda tenant: 0.0
    """0 for one that has no time of its own."""

    def jobs_s(self, tenant: str) -> float:
        """After the end of a job."""
        return self.of_tenant(tenant) or self.jobs

    def histories_s(self, tenant: str) -> float:
        """After the last turn of a conversation."""
        return min(self.of_tenant(tenant) or self.histories, self.histories)


class Sweeping:
    """Each worker runs it periodically; concurrent runs are safe."""

    def __init__(
        self,
        config: JobsConfig,
        max_session_s: float,
        retention: Retention,
        tidy_usage: Callable[[], Awaitable[None]],
        database: Database,
        queue: Queue,
        cache: ResultCache,
        objects: Objects,
        webhooks: Webhooks,
        search: SearchIndex,
    ) -> None:
        self._search = search
        self._config = config
        self._max_session_s = max_session_s
        self._retention = retention
        self._tidy_usage = tidy_usage
        self._database = database
        self._deletion = Deletion(database, objects)
        self._uploads = ResumableUploads(database, objects)
        self._queue = queue
        self._cache = cache
        self._objects = objects
        self._webhooks = webhooks
        self._swept_orphans = -ORPHAN_S

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._sweep_once()
            except ClientError as error:
                log.warning("sweep_failed", extra={"code": error.code})
            await asyncio.sleep(SWEEP_S)

    async def _sweep_once(self) -> None:
        await self._deletion.carry_out_all()
        tenants = await self._queue.tenants()
        await self._sweep_old({it: self._retention.jobs_s(it) for it in tenants})
        histories = {it: self._retention.histories_s(it) for it in tenants}
        await forget_histories(self._database, histories)
        for job in await self._queue.lost_sessions(self._max_session_s + LOST_S):
            with contextlib.suppress(LeaseLost):
                reason = "the session ended without a transcript"
                await self._queue.end(job, Ending(JobState.FAILED, "session_lost", reason))
        await self._search.index_some()
        await self._uploads.forget()
        await self._queue.forget_shares()
        await self._cache.forget(self._config.cache_entries)
        await self._tidy_usage()
        await self._sweep_orphans()
        await self._database.forget_deleted()

    async def _sweep_old(self, kept: Kept) -> None:
        while old := await self._queue.expired(kept):
            for job in old:
                await self._queue.cancel(job)
                await self._objects.delete(f"{job.tenant}/{job.id}")
                audit("job_deleted", tenant=job.tenant, id=job.id, by="retention")
        await self._webhooks.forget(kept)

    async def _sweep_orphans(self) -> None:
        """At most every `ORPHAN_S`, because it lists all objects."""
        if time.monotonic() - self._swept_orphans < ORPHAN_S:
            return
        self._swept_orphans = time.monotonic()
        old = time.time() - ORPHAN_S
        await self._objects.forget_unfinished(old)
        names = await self._objects.names("")
        found = [OF_A_JOB.match(name) for name, written in names if written < old]
        paths = sorted({it[0]: it["job"] for it in found if it}.items())
        for at in range(0, len(paths), SWEPT_AT_ONCE):
            some = paths[at : at + SWEPT_AT_ONCE]
            known = await self._queue.known([job for _, job in some])
            for path, job in some:
                if job not in known:
                    await self._objects.delete(path)
