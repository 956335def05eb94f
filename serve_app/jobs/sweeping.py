"""Deletes old jobs, old cache entries, old histories, and objects that no job has."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable

from serve_app.config import JobsConfig
from serve_app.errors import ClientError
from serve_app.jobs.job import JobState
from serve_app.jobs.objects import Objects
from serve_app.jobs.queue import Ending, LeaseLost, Queue
from serve_app.jobs.result_cache import ResultCache
from serve_app.jobs.webhooks.delivery import Webhooks

log = logging.getLogger("voxray.jobs")

SWEEP_S = 60.0
LOST_S = 300.0
"""Time after the longest possible session after which an open one has lost its ingress."""

ORPHAN_S = 7200.0
"""An object without a job for this long belongs to an aborted upload."""

OURS = re.compile(r"[^/]+/(?P<job>job_[0-9a-f]{32})(?=/)")
"""Objects of jobs; nothing else in the store is deleted."""

SWEPT_AT_ONCE = 500


class Sweeping:
    """Each worker runs it periodically; concurrent runs are safe."""

    def __init__(
        self,
        config: JobsConfig,
        max_session_s: float,
        forget_histories: Callable[[], Awaitable[None]],
        tidy_usage: Callable[[], Awaitable[None]],
        queue: Queue,
        cache: ResultCache,
        objects: Objects,
        webhooks: Webhooks,
    ) -> None:
        self._config = config
        self._max_session_s = max_session_s
        self._forget_histories = forget_histories
        self._tidy_usage = tidy_usage
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
        for job in await self._queue.expired(self._config.retention_s):
            await self._queue.cancel(job)
            await self._objects.delete(f"{job.tenant}/{job.id}")
        for job in await self._queue.lost_sessions(self._max_session_s + LOST_S):
            with contextlib.suppress(LeaseLost):
                reason = "the session ended without a transcript"
                await self._queue.end(job, Ending(JobState.FAILED, "session_lost", reason))
        await self._queue.forget_shares()
        await self._cache.forget(self._config.cache_entries)
        await self._webhooks.forget(self._config.retention_s)
        await self._forget_histories()
        await self._tidy_usage()
        await self._sweep_orphans()

    async def _sweep_orphans(self) -> None:
        """At most every `ORPHAN_S`, because it lists all objects."""
        if time.monotonic() - self._swept_orphans < ORPHAN_S:
            return
        self._swept_orphans = time.monotonic()
        old = time.time() - ORPHAN_S
        await self._objects.forget_unfinished(old)
        names = await self._objects.names("")
        found = [OURS.match(name) for name, written in names if written < old]
        paths = sorted({it[0]: it["job"] for it in found if it}.items())
        for at in range(0, len(paths), SWEPT_AT_ONCE):
            some = paths[at : at + SWEPT_AT_ONCE]
            known = await self._queue.known([job for _, job in some])
            for path, job in some:
                if job not in known:
                    await self._objects.delete(path)
