"""The rows of jobs: submitted once, claimed with a lease, ended once.

Each write of a worker requires its lease: after another worker has taken the job, its writes fail
with `LeaseLost`. So a job has one result, even if it was computed twice.
"""

import json
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database, now
from serve_app.jobs.job import CLAIMED, ENDED, Job, JobOptions, JobState, Standing
from serve_app.jobs.private import Private
from serve_app.jobs.result_cache import remember
from serve_app.jobs.retention import WITH_DATA, Kept, is_over
from serve_app.jobs.room import Room, check_room
from serve_app.jobs.shares import charge, correct, forget_idle, lift, next_of
from serve_app.jobs.standing import pace, standing_of
from serve_app.jobs.tables import jobs
from serve_app.jobs.webhooks.announcement import announce
from serve_app.usage import table as usage
from serve_app.usage.meter import Counted

MOST_LOSSES = 2
"""A job that crashes this many workers without progress fails."""


class LeaseLost(Exception):
    """Another worker has the job."""


class Submitted(NamedTuple):
    """A new job."""

    id: str
    tenant: str
    options: JobOptions
    filename: str
    media_type: str
    size: int
    digest: str
    idempotency_key: str | None
    sealed_key: bytes | None
    kind: str = "file"
    key: str = ""
    """The id of the key that submitted it."""


class Filter(NamedTuple):
    states: tuple[str, ...] = ()
    kind: str | None = None
    after: str | None = None
    limit: int = 20


class Ending(NamedTuple):
    """How a job ends."""

    state: JobState
    error_code: str | None = None
    error_message: str | None = None
    fingerprint: str | None = None
    cached: bool = False


def new_id() -> str:
    return f"job_{uuid.uuid4().hex}"


def _conflict() -> ClientError:
    reason = "this idempotency key was used for another request"
    return ClientError("idempotency_conflict", reason)


async def _count(connection: Any, ended: Job) -> None:
    """A job counts once, in whatever state it ends, with the audio that has been transcribed."""
    who = Principal(ended.tenant, ended.key)
    await usage.add(connection, who, {Counted.JOBS: 1, Counted.AUDIO: ended.heard_s})


class Queue:
    """All jobs of all tenants. Every method raises `ClientError` if the database is unavailable."""

    def __init__(
        self,
        database: Database,
        lease_s: float,
        private: Private | None = None,
        weight_of: Callable[[str], float] = lambda tenant: 1.0,
    ) -> None:
        self._weight_of = weight_of
        self._database = database
        self._lease_s = lease_s
        self._private = private or Private()

    # For clients.

    async def submit(
        self, asked: Submitted, most_waiting: int, rooms: Sequence[Room] = ()
    ) -> tuple[Job, bool]:
        """The job, and whether it is new: the same idempotency key gives the same job.

        Raises `ClientError` if the key was used for another request, too many jobs wait, or there
        is no room.
        """
        if asked.idempotency_key and (before := await self._submitted_before(asked)):
            return before, False
        try:
            return await self._insert(asked, [Room("", most_waiting, 0), *rooms]), True
        except sa.exc.IntegrityError as error:
            if before := await self._submitted_before(asked):
                return before, False
            raise _conflict() from error

    async def free(
        self, tenant: str, rooms: Sequence[Room], size: int
    ) -> Sequence[tuple[int, Room]]:
        """See `check_room`."""
        if not rooms:
            return ()
        async with self._database.read() as connection:
            return await check_room(connection, tenant, rooms, size)

    async def _insert(self, asked: Submitted, rooms: Sequence[Room]) -> Job:
        live = asked.kind == "live"
        async with self._database.write() as connection:
            await check_room(connection, asked.tenant, rooms, asked.size)
            fields = asked._asdict() | {
                "options": asked.options.model_dump_json(),
                "priority": asked.options.priority,
                "state": JobState.RUNNING if live else JobState.QUEUED,
                "started": now() if live else None,
                "created": now(),
            }
            stored = self._private.new_job(fields)
            if not live:
                await lift(connection, asked.tenant)
            row = await connection.execute(jobs.insert().values(stored).returning(*jobs.c))
            return self._private.job(row.mappings().one())

    async def _submitted_before(self, asked: Submitted) -> Job | None:
        """The job of the same key. Raises `ClientError` if that was another request."""
        keys = self._private.stored_as(asked.tenant, asked.idempotency_key or "")
        same = (jobs.c.tenant == asked.tenant) & jobs.c.idempotency_key.in_(keys)
        async with self._database.read() as connection:
            row = (await connection.execute(jobs.select().where(same))).mappings().first()
        job = self._private.job(row) if row else None
        if job and (job.digest, job.options) != (asked.digest, asked.options):
            raise _conflict()
        return job

    async def get(self, tenant: str, id_: str) -> Job:
        """Raises `ClientError` `job_not_found`, also for another tenant's job."""
        async with self._database.read() as connection:
            mine = (jobs.c.tenant == tenant) & (jobs.c.id == id_)
            row = (await connection.execute(jobs.select().where(mine))).mappings().first()
        if row is None:
            raise ClientError("job_not_found", f"there is no job {id_[:80]!r}")
        return self._private.job(row)

    async def find(self, tenant: str, asked: Filter) -> tuple[list[Job], bool]:
        """The newest first, and whether there are more."""
        wanted = jobs.select().where(jobs.c.tenant == tenant)
        if asked.states:
            wanted = wanted.where(jobs.c.state.in_(asked.states))
        if asked.kind:
            wanted = wanted.where(jobs.c.kind == asked.kind)
        if asked.after:
            after = await self.get(tenant, asked.after)
            wanted = wanted.where(jobs.c.sequence < after.sequence)
        wanted = wanted.order_by(jobs.c.sequence.desc()).limit(asked.limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(wanted)).mappings().all()
        return [self._private.job(row) for row in rows[: asked.limit]], len(rows) > asked.limit

    async def those(self, tenant: str, ids: Sequence[str]) -> list[Job]:
        """Those of the tenant that exist, the newest first."""
        mine = (jobs.c.tenant == tenant) & jobs.c.id.in_(ids)
        async with self._database.read() as connection:
            newest = jobs.select().where(mine).order_by(jobs.c.sequence.desc())
            rows = (await connection.execute(newest)).mappings().all()
        return [self._private.job(row) for row in rows]

    async def standings(self, waiting: Sequence[Job]) -> dict[str, Standing]:
        """The queue positions of those jobs that wait."""
        queued = [job for job in waiting if job.state is JobState.QUEUED]
        if not queued:
            return {}
        async with self._database.read() as connection:
            mean_s, running = await pace(connection)
            return {job.id: await standing_of(connection, job, mean_s, running) for job in queued}

    async def cancel(self, job: Job) -> Job | None:
        """Cancel a job that has not ended; delete one that has (None)."""
        at_work = jobs.c.state.in_(CLAIMED) & (jobs.c.kind == "file")
        next_ = sa.case((at_work, JobState.CANCELLING), else_=JobState.CANCELLED)
        done = sa.case((at_work, sa.null()), else_=now())
        async with self._database.write() as connection:
            row = await connection.execute(
                jobs.update()
                .where(jobs.c.id == job.id, jobs.c.state.not_in(ENDED))
                .values(state=next_, finished=done)
                .returning(*jobs.c)
            )
            changed = row.mappings().first()
            if changed:
                cancelled = self._private.job(changed)
                if cancelled.ended:
                    await announce(connection, cancelled, self._private)
                    await _count(connection, cancelled)
                return cancelled
            await connection.execute(jobs.delete().where(jobs.c.id == job.id))
        return None

    # For workers.

    async def claim(self, beside: bool = False) -> Job | None:
        """The next job that waits or whose worker is lost; the caller holds its `lease`. The tenant
        that has had the least is first, and of its jobs that of the highest priority.

        `beside`: only of tenants that have no job running.
        """
        lost = jobs.c.state.in_(CLAIMED) & (jobs.c.lease_until < now()) & (jobs.c.kind == "file")
        free = (jobs.c.state == JobState.QUEUED) & (jobs.c.not_before <= now())
        async with self._database.write() as connection:
            found = (await connection.execute(next_of(free | lost, beside))).first()
            if found is None:
                return None
            row = await connection.execute(
                jobs.update()
                .where(jobs.c.sequence == found.sequence)
                .values(self._claimed())
                .returning(*jobs.c)
            )
            claimed = self._private.job(row.mappings().one())
            if found.started is None:
                await charge(connection, claimed, self._weight_of(claimed.tenant))
        return claimed

    def _claimed(self) -> dict[str, Any]:
        return {
            "state": sa.case(
                (jobs.c.state == JobState.CANCELLING, JobState.CANCELLING), else_="running"
            ),
            "lease": f"{os.getpid()}-{uuid.uuid4().hex[:24]}",
            "lease_until": now() + self._lease_s,
            "started": sa.func.coalesce(jobs.c.started, now()),
            "losses": sa.case((jobs.c.state.in_(CLAIMED), jobs.c.losses + 1), else_=jobs.c.losses),
        }

    async def renew(self, job: Job, **changes: Any) -> JobState:
        """Renew the lease and store the changes; returns the job's state. Raises `LeaseLost`."""
        values = {**changes, "lease_until": now() + self._lease_s}
        return (await self._write(job, values)).state

    async def requeue(self, job: Job, delay_s: float, attempts: int) -> None:
        """Put it back; it can be claimed after `delay_s`. Raises `LeaseLost`."""
        waiting = sa.case((jobs.c.state == JobState.RUNNING, JobState.QUEUED), else_=jobs.c.state)
        values = {
            "state": waiting,
            "lease": None,
            "lease_until": 0.0,
            "not_before": now() + delay_s,
            "attempts": attempts,
            "losses": 0,
        }
        await self._write(job, values)

    async def end(self, job: Job, ending: Ending, **changes: Any) -> None:
        """Store the last state and the webhook, and count what was used, in one transaction.
        Raises `LeaseLost`.

        If the job is being cancelled, it ends as cancelled, even with a result.
        """
        state = sa.case(
            (jobs.c.state == JobState.CANCELLING, JobState.CANCELLED), else_=ending.state
        )
        values: dict[str, Any] = {
            **changes,
            "state": state,
            "finished": now(),
            "lease": None,
            "error_code": ending.error_code,
            "error_message": (ending.error_message or "")[:1000] or None,
            "cached": ending.cached,
        }
        if ending.state is JobState.COMPLETED:
            values["progress"] = 100.0
        async with self._database.write() as connection:
            ended = await self._write_on(connection, job, values)
            await announce(connection, ended, self._private)
            await correct(connection, ended, self._weight_of(ended.tenant))
            await _count(connection, ended)
            if ending.fingerprint and ended.state is JobState.COMPLETED:
                found_by = self._private.digest(ended.tenant, ending.fingerprint)
                await remember(connection, ended, found_by)

    async def expired(self, kept: Kept) -> list[Job]:
        """Some of the jobs that ended longer ago than they are kept."""
        old = jobs.c.state.in_(ENDED) & is_over(jobs.c.tenant, jobs.c.finished, kept)
        async with self._database.read() as connection:
            rows = await connection.execute(jobs.select().where(old).limit(100))
            return [self._private.job(row) for row in rows.mappings().all()]

    async def forget_shares(self) -> None:
        """Of tenants that have no jobs and owe nothing."""
        async with self._database.write() as connection:
            await forget_idle(connection)

    async def tenants(self) -> list[str]:
        """All that have data."""
        async with self._database.read() as connection:
            return list((await connection.execute(WITH_DATA)).scalars())

    async def lost_sessions(self, longest_s: float) -> list[Job]:
        """Live sessions that lost their ingress replica."""
        old = jobs.c.created < now() - longest_s
        lost = (jobs.c.kind == "live") & (jobs.c.state == JobState.RUNNING) & old
        async with self._database.read() as connection:
            rows = await connection.execute(jobs.select().where(lost).limit(100))
            return [self._private.job(row) for row in rows.mappings().all()]

    async def known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that exist."""
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(jobs.c.id).where(jobs.c.id.in_(ids)))
            return set(rows.scalars())

    async def load(self) -> int:
        """Jobs that wait or run: workers are scaled by it."""
        return sum((await self.counts()).values())

    async def counts(self) -> dict[JobState, int]:
        """Jobs that wait or run, by state."""
        states = (JobState.QUEUED, *sorted(CLAIMED))
        busy = jobs.c.state.in_(states) & (jobs.c.kind == "file")
        counted = sa.select(jobs.c.state, sa.func.count()).where(busy).group_by(jobs.c.state)
        async with self._database.read() as connection:
            found = {JobState(state): count for state, count in await connection.execute(counted)}
        return {state: found.get(state, 0) for state in states}

    async def oldest_s(self) -> float:
        """How long the first waiting job has waited; 0 if none waits."""
        queued = jobs.c.state.in_((JobState.QUEUED,)) & (jobs.c.kind == "file")
        async with self._database.read() as connection:
            age_s = await connection.scalar(
                sa.select(now() - sa.func.min(jobs.c.created)).where(queued)
            )
        return max(0.0, age_s or 0.0)

    async def _write(self, job: Job, values: dict[str, Any]) -> Job:
        async with self._database.write() as connection:
            return await self._write_on(connection, job, values)

    async def _write_on(self, connection: Any, job: Job, values: dict[str, Any]) -> Job:
        if "warnings" in values:
            values = {**values, "warnings": json.dumps(values["warnings"])}
        row = await connection.execute(
            jobs.update()
            .where(jobs.c.id == job.id, jobs.c.lease == job.lease, jobs.c.state.not_in(ENDED))
            .values(self._private.changed(job, values))
            .returning(*jobs.c)
        )
        written = row.mappings().first()
        if written is None:
            raise LeaseLost(job.id)
        return self._private.job(written)
