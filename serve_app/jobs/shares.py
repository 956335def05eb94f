"""Which tenant's job is next: `deployments.fairness` in SQL, for jobs.

A tenant's counter grows by the seconds of audio of each job that is claimed, divided by its weight.
The lowest counter is first. A tenant without jobs that submits one is lifted to the lowest counter
of those who have some.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from deployments.fairness import LEAST
from serve_app.jobs.job import CLAIMED, Job, JobState
from serve_app.jobs.tables import jobs, shares

BYTES_A_SECOND = 16_000
"""Of a recording whose length is not known yet."""

FILES = jobs.c.kind == "file"
RUNNING = sa.select(jobs.c.tenant).where(jobs.c.state.in_(CLAIMED), FILES)
ACTIVE = sa.select(jobs.c.tenant).where(jobs.c.state.in_((JobState.QUEUED, *CLAIMED)), FILES)
LOWEST = sa.select(sa.func.min(shares.c.counter)).where(shares.c.tenant.in_(ACTIVE))


def next_of(wanted: Any, beside: bool) -> Any:
    """The first job of those that are `wanted`; with `beside`, of tenants that have none running.
    Locked until the transaction ends."""
    first = (
        sa.select(jobs.c.sequence, jobs.c.started)
        .join_from(jobs, shares, jobs.c.tenant == shares.c.tenant, isouter=True)
        .where(wanted)
        .order_by(sa.func.coalesce(shares.c.counter, 0.0), jobs.c.priority.desc(), jobs.c.sequence)
        .limit(1)
        .with_for_update(skip_locked=True, of=jobs)
    )
    return first.where(jobs.c.tenant.not_in(RUNNING)) if beside else first


async def lift(connection: Any, tenant: str) -> None:
    """Before the tenant's job is stored: if it has none, it begins where the others are."""
    mine = sa.exists(ACTIVE.where(jobs.c.tenant == tenant))
    if await connection.scalar(sa.select(mine)):
        return
    lowest = await connection.scalar(LOWEST) or 0.0
    lifted = sa.case((shares.c.counter < lowest, lowest), else_=shares.c.counter)
    await _set(connection, tenant, lowest, lifted)


async def charge(connection: Any, job: Job, weight: float) -> None:
    """For a job that is claimed for the first time."""
    await _add(connection, job.tenant, max(LEAST, _guess(job)) / weight)


async def correct(connection: Any, job: Job, weight: float) -> None:
    """For a job that has ended and was charged: now its length is known."""
    if job.kind == "file" and job.started is not None and job.duration_s is not None:
        await _add(connection, job.tenant, (job.duration_s - _guess(job)) / weight)


async def forget_idle(connection: Any) -> None:
    """Those who would be lifted when they come back."""
    idle = shares.c.tenant.not_in(ACTIVE)
    lowest = LOWEST.scalar_subquery()
    await connection.execute(
        shares.delete().where(idle, sa.or_(lowest.is_(None), shares.c.counter <= lowest))
    )


def _guess(job: Job) -> float:
    return job.size / BYTES_A_SECOND


async def _add(connection: Any, tenant: str, amount: float) -> None:
    """Added by the database, because other workers add at the same time."""
    await _set(connection, tenant, max(0.0, amount), shares.c.counter + amount)


async def _set(connection: Any, tenant: str, new: float, changed: Any) -> None:
    """`changed`: the counter, if there is one."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(shares).values(tenant=tenant, counter=new)
    on = {"index_elements": [shares.c.tenant], "set_": {"counter": changed}}
    await connection.execute(insert.on_conflict_do_update(**on))
