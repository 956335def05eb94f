"""`GET /v1/jobs/events`: one stream of server-sent events for all jobs of a tenant.

All watchers of a tenant share one look at the database a second. A watcher that reads slowly gets
the newest state of each job, not every state.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio

from serve_app.api.streamed import event
from serve_app.api.submission import Submission
from serve_app.errors import ClientError
from serve_app.jobs.queue import Filter

LOOK_S = 1.0
KEEP_ALIVE_S = 15.0
SHOWN = 100
"""The newest jobs of a tenant; older ones do not change any more."""

RETRY = b"retry: 1000\n\n"
Views = dict[str, dict[str, Any]]


class _Watcher:
    """What one client has not been told."""

    def __init__(self) -> None:
        self.changed: Views = {}
        self.deleted: set[str] = set()
        self.news = anyio.Event()

    def tell(self, changed: Views, deleted: set[str]) -> None:
        self.changed = {id_: it for id_, it in self.changed.items() if id_ not in deleted} | changed
        self.deleted |= deleted
        if changed or deleted:
            self.news.set()

    def take(self) -> list[bytes]:
        told = [event({"type": "deleted", "id": id_}) for id_ in sorted(self.deleted)]
        told += [event({"type": "job", "job": view}) for view in self.changed.values()]
        self.changed, self.deleted, self.news = {}, set(), anyio.Event()
        return told


class JobFeed:
    """Looks while `run` runs, and only for tenants that somebody watches."""

    def __init__(self, submission: Submission, is_draining: Callable[[], bool]) -> None:
        self._submission = submission
        self._is_draining = is_draining
        self._watchers: dict[str, set[_Watcher]] = {}
        self._known: dict[str, Views] = {}

    async def run(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            for tenant in list(self._watchers):
                await self._look(tenant)

    async def events(self, tenant: str) -> AsyncGenerator[bytes, None]:
        """`snapshot`, then `job` and `deleted`. Raises `ClientError` before the first."""
        watcher = _Watcher()
        known = await self._views(tenant)
        self._known.setdefault(tenant, known)
        self._watchers.setdefault(tenant, set()).add(watcher)
        try:
            yield RETRY + event({"type": "snapshot", "jobs": list(known.values())})
            while not self._is_draining():
                async for piece in self._news(watcher):
                    yield piece
        finally:
            self._leave(tenant, watcher)

    async def _news(self, watcher: _Watcher) -> AsyncGenerator[bytes, None]:
        with anyio.move_on_after(KEEP_ALIVE_S) as waited:
            while not (watcher.news.is_set() or self._is_draining()):
                with anyio.move_on_after(LOOK_S):
                    await watcher.news.wait()
        if waited.cancelled_caught:
            yield b": keep-alive\n\n"
        for piece in watcher.take():
            yield piece

    def _leave(self, tenant: str, watcher: _Watcher) -> None:
        watchers = self._watchers[tenant]
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[tenant], self._known[tenant]

    async def _look(self, tenant: str) -> None:
        try:
            now = await self._views(tenant)
        except ClientError:
            return  # the database is away: the next look tells what has changed
        before = self._known.get(tenant, {})
        changed = {id_: view for id_, view in now.items() if before.get(id_) != view}
        gone = await self._gone(tenant, before.keys() - now.keys())
        if tenant in self._watchers:
            self._known[tenant] = now
            for watcher in self._watchers[tenant]:
                watcher.tell(changed, gone)

    async def _gone(self, tenant: str, missing: set[str]) -> set[str]:
        """Those that were deleted; the others are only older than the newest now."""
        if not missing:
            return set()
        there = await self._submission.jobs.queue.those(tenant, sorted(missing))
        return missing - {job.id for job in there}

    async def _views(self, tenant: str) -> Views:
        found, _ = await self._submission.jobs.queue.find(tenant, Filter(limit=SHOWN))
        return {view["id"]: view for view in await self._submission.views(*found)}
