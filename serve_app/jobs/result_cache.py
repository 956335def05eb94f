"""Finds earlier results of the same recording with the same options."""

from typing import Any

import sqlalchemy as sa

from serve_app.jobs.database import Database, now
from serve_app.jobs.job import Job
from serve_app.jobs.private import Private
from serve_app.jobs.tables import cache, jobs


class ResultCache:
    """One for each tenant. Every method raises `ClientError` if the database is unavailable."""

    def __init__(self, database: Database, private: Private | None = None) -> None:
        self._database = database
        self._private = private or Private()

    async def remembered(self, tenant: str, fingerprint: str) -> Job | None:
        """The job that has the result."""
        stored = self._private.stored_as(tenant, fingerprint)
        known = (cache.c.tenant == tenant) & cache.c.fingerprint.in_(stored)
        async with self._database.write() as connection:
            row = await connection.execute(
                jobs.select().join(cache, cache.c.job_id == jobs.c.id).where(known)
            )
            found = row.mappings().first()
            if found:
                await connection.execute(cache.update().where(known).values(used=now()))
        return self._private.job(found) if found else None

    async def forget(self, most: int) -> None:
        """Delete all but the `most` last used entries of each tenant."""
        rank = (
            sa.func.row_number()
            .over(partition_by=cache.c.tenant, order_by=cache.c.used.desc())
            .label("rank")
        )
        ranked = sa.select(cache.c.tenant, cache.c.fingerprint, rank).subquery()
        old = sa.select(ranked.c.tenant, ranked.c.fingerprint).where(ranked.c.rank > most)
        async with self._database.write() as connection:
            for tenant, fingerprint in (await connection.execute(old)).all():
                await connection.execute(
                    cache.delete().where(
                        cache.c.tenant == tenant, cache.c.fingerprint == fingerprint
                    )
                )


async def remember(connection: Any, job: Job, fingerprint: str) -> None:
    """Within the transaction that ends the job."""
    same = (cache.c.tenant == job.tenant) & (cache.c.fingerprint == fingerprint)
    await connection.execute(cache.delete().where(same))
    await connection.execute(
        cache.insert().values(tenant=job.tenant, fingerprint=fingerprint, job_id=job.id, used=now())
    )
