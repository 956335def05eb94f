"""Corrected results: each correction is a revision with a number, and the newest one counts.

The result of the recogniser is revision 0 and stays as it is. A revision is an object beside it,
written while its row is locked: if two people correct the same revision, the second is told so.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.correction import Correction, corrected
from serve_app.jobs.database import Database, now
from serve_app.jobs.job import Job, JobState, result_name
from serve_app.jobs.objects import Objects
from serve_app.jobs.result import Result
from serve_app.jobs.tables import jobs, revisions

KEPT = 200
"""Revisions of a job; beyond them the oldest are deleted, but never the recogniser's result."""


class Revision(NamedTuple):
    number: int
    parent: int
    """What it was made from."""
    created: float
    key: str
    """The id of the key that made it."""
    edits: int
    """How many; 0: it went back to an earlier one."""


def conflict(newest: int) -> ClientError:
    reason = f"somebody else has corrected it: the newest revision is {newest}"
    return ClientError("revision_conflict", f"{reason}; read it and try again")


class Revisions:
    """Every method raises `ClientError`."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects

    async def result(self, job: Job, revision: int | None = None) -> Result:
        """Of a completed job; the newest unless another one is asked for."""
        if job.state is not JobState.COMPLETED:
            raise ClientError("job_not_completed", f"the job is {job.state} and has no result")
        number = job.revision if revision is None else revision
        body = await self._objects.read(job, result_name(number))
        if body is None and number and number != job.revision:
            raise ClientError("revision_not_found", f"there is no revision {number}")
        if body is None:
            raise ClientError("storage_damaged", "the stored result is missing")
        return Result.model_validate_json(body)

    async def correct(self, job: Job, by: Principal, asked: Correction) -> tuple[Job, Result]:
        """The job with its new revision. Raises `ClientError` `revision_conflict` if the job has
        another one than `job` says."""
        whole = await self._corrected(job, asked)
        number = job.revision + 1
        same = (jobs.c.id == job.id) & (jobs.c.revision == job.revision)
        async with self._database.write() as connection:
            newer = jobs.update().where(same, jobs.c.state == JobState.COMPLETED)
            values = {"revision": number, "indexed": False}
            if not (await connection.execute(newer.values(values))).rowcount:
                raise await self._refused(connection, job)
            await connection.execute(revisions.insert().values(_row(job, by, asked)))
            body = whole.model_dump_json().encode()
            await self._objects.put(job, result_name(number), body)
        await self._forget(job, number - KEPT)
        return job._replace(revision=number), whole

    async def all(self, job: Job) -> list[Revision]:
        """The newest first; the recogniser's result is not among them."""
        columns = [revisions.c[name] for name in Revision._fields]
        mine = sa.select(*columns).where(revisions.c.job_id == job.id)
        async with self._database.read() as connection:
            rows = await connection.execute(mine.order_by(revisions.c.number.desc()))
            return [Revision(*row) for row in rows]

    async def _corrected(self, job: Job, asked: Correction) -> Result:
        if asked.revert_to is not None:
            return await self.result(job, asked.revert_to)
        return corrected(await self.result(job), asked.edits)

    async def _refused(self, connection: Any, job: Job) -> ClientError:
        newest = await connection.scalar(sa.select(jobs.c.revision).where(jobs.c.id == job.id))
        if newest is None:
            return ClientError("job_not_found", f"there is no job {job.id!r}")
        return conflict(newest)

    async def _forget(self, job: Job, until: int) -> None:
        if until < 1:
            return
        old = (revisions.c.job_id == job.id) & (revisions.c.number <= until)
        async with self._database.write() as connection:
            gone = revisions.delete().where(old).returning(revisions.c.number)
            numbers = list((await connection.execute(gone)).scalars())
        for number in numbers:
            await self._objects.delete(job.path(result_name(number)).rpartition("/")[0])


def _row(job: Job, by: Principal, asked: Correction) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "tenant": job.tenant,
        "number": job.revision + 1,
        "parent": job.revision if asked.revert_to is None else asked.revert_to,
        "created": now(),
        "key": by.key,
        "edits": len(asked.edits),
    }
