"""Deletes all data of a tenant, on request: recordings, results, webhooks, conversations.

The request is a row that is there until everything of before it is gone. So it is carried out also
if this process dies: each worker's sweep goes on with it. It may be repeated at any time. Jobs that
run are cancelled first, and deleted by the next sweep. What the tenant used, and the audit log,
stay: they have no words, and are what a bill and an inquiry need.
"""

from collections import Counter
from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.jobs.database import Database, now
from serve_app.jobs.job import CLAIMED, JobState
from serve_app.jobs.objects import OF_A_JOB, Objects
from serve_app.jobs.resumable import ResumableUploads
from serve_app.jobs.tables import cache, deletions, deliveries, histories, jobs

AT_ONCE = 500
"""Jobs in one transaction: other writers wait for less than that takes."""

IS_WORKED_ON = jobs.c.state.in_(CLAIMED) & (jobs.c.kind == "file")


class Deleted(NamedTuple):
    """What is gone so far."""

    counts: Counter[str]
    running: int
    """Jobs that are being cancelled, and are deleted when their workers have let go of them."""


class Deletion:
    """All methods raise `ClientError` while the database or the store is unavailable."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects
        self._uploads = ResumableUploads(database, objects)

    async def request(self, tenant: str) -> Deleted:
        """Everything of the tenant that is there now; what comes later is not meant."""
        async with self._database.write() as connection:
            await connection.execute(deletions.delete().where(deletions.c.tenant == tenant))
            await connection.execute(deletions.insert().values(tenant=tenant, before=now()))
        return await self.carry_out(tenant)

    async def carry_out_all(self) -> None:
        """Goes on with what was requested and is not done."""
        async with self._database.read() as connection:
            tenants = list((await connection.execute(sa.select(deletions.c.tenant))).scalars())
        for tenant in tenants:
            await self.carry_out(tenant)

    async def carry_out(self, tenant: str) -> Deleted:
        """As far as possible now."""
        asked = sa.select(deletions.c.before).where(deletions.c.tenant == tenant)
        async with self._database.read() as connection:
            before = await connection.scalar(asked)
        if before is None:  # a sweep was faster
            return Deleted(Counter(), 0)
        counts = await self._rows(tenant, before)
        await self._uploads.delete_of(tenant, before)
        counts["objects"] += await self._objects_of_no_job(tenant, before)
        running = await self._running(tenant, before)
        if not running:
            await self._close(tenant, before)
        await self._database.forget_deleted()
        return Deleted(+counts, running)

    async def _rows(self, tenant: str, before: float) -> Counter[str]:
        counts: Counter[str] = Counter()
        async with self._database.write() as connection:
            cancelled = jobs.update().where(_of(jobs, tenant, before), IS_WORKED_ON)
            await connection.execute(cancelled.values(state=JobState.CANCELLING))
        while ids := await self._some_jobs(tenant, before, counts):
            for id_ in ids:
                counts["objects"] += await self._objects.delete(f"{tenant}/{id_}")
        async with self._database.write() as connection:
            for name, table in (("webhooks", deliveries), ("conversations", histories)):
                gone = await connection.execute(table.delete().where(_of(table, tenant, before)))
                counts[name] += gone.rowcount
        return counts

    async def _some_jobs(self, tenant: str, before: float, counts: Counter[str]) -> list[str]:
        """Deletes some that nobody works on, with all that belongs to them; their ids. With its row
        a job's key is gone: nobody can read its objects any more."""
        mine = _of(jobs, tenant, before) & ~IS_WORKED_ON
        some = jobs.c.id.in_(sa.select(jobs.c.id).where(mine).limit(AT_ONCE))
        async with self._database.write() as connection:
            # `mine` again, for PostgreSQL: a worker may have claimed one meanwhile.
            gone = jobs.delete().where(some, mine).returning(jobs.c.id)
            ids = list((await connection.execute(gone)).scalars())
            await connection.execute(cache.delete().where(cache.c.job_id.in_(ids)))
            theirs = deliveries.delete().where(deliveries.c.job_id.in_(ids))
            counts["webhooks"] += (await connection.execute(theirs)).rowcount
        counts["recordings"] += len(ids)
        return ids

    async def _objects_of_no_job(self, tenant: str, before: float) -> int:
        """What a process that died has left of a job whose row is gone."""
        names = await self._objects.names(tenant)
        found = [OF_A_JOB.match(name) for name, written in names if written <= before]
        ids = {it["job"] for it in found if it}
        count = 0
        for some in _portions(sorted(ids)):
            async with self._database.read() as connection:
                rows = await connection.execute(sa.select(jobs.c.id).where(jobs.c.id.in_(some)))
                known = set(rows.scalars())
            for id_ in set(some) - known:
                count += await self._objects.delete(f"{tenant}/{id_}")
        return count

    async def _running(self, tenant: str, before: float) -> int:
        left = sa.select(sa.func.count()).select_from(jobs).where(_of(jobs, tenant, before))
        async with self._database.read() as connection:
            return await connection.scalar(left) or 0

    async def _close(self, tenant: str, before: float) -> None:
        same = (deletions.c.tenant == tenant) & (deletions.c.before == before)
        async with self._database.write() as connection:
            await connection.execute(deletions.delete().where(same))


def _of(table: sa.Table, tenant: str, before: float) -> sa.ColumnElement[bool]:
    """The tenant's rows that were there at the request."""
    at: sa.Column[Any] = table.c.updated if table is histories else table.c.created
    return (table.c.tenant == tenant) & (at <= before)


def _portions(ids: list[str]) -> list[list[str]]:
    return [ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)]
