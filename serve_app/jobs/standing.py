"""The queue position of a waiting job, and an estimate from the time that recent jobs took.

Tenants are taken to have turns; who has had more than others, and how long jobs are, is left out.
"""

from typing import Any

import sqlalchemy as sa

from serve_app.jobs.job import CLAIMED, Job, JobState, Standing
from serve_app.jobs.tables import jobs

RECENT = 20
"""Completed jobs that the estimate is based on."""


async def pace(connection: Any) -> tuple[float | None, int]:
    """Mean seconds of recent jobs, and how many run now."""
    spent = (jobs.c.finished - jobs.c.started).label("spent")
    lately = (
        sa.select(spent)
        .where(jobs.c.state == JobState.COMPLETED, jobs.c.kind == "file")
        .order_by(jobs.c.sequence.desc())
        .limit(RECENT)
        .subquery()
    )
    mean_s = await connection.scalar(sa.select(sa.func.avg(lately.c.spent)))
    running = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state.in_(CLAIMED))
    return (float(mean_s) if mean_s is not None else None), int(await connection.scalar(running))


async def standing_of(connection: Any, job: Job, mean_s: float | None, running: int) -> Standing:
    priority = job.options.priority
    others = jobs.c.tenant != job.tenant
    before = sa.or_(
        jobs.c.priority > priority,
        (jobs.c.priority == priority) & (jobs.c.sequence < job.sequence),
    )
    counted = (
        sa.select(jobs.c.tenant, sa.func.count())
        .where(jobs.c.state == JobState.QUEUED, sa.or_(others, before))
        .group_by(jobs.c.tenant)
    )
    waiting = {tenant: count for tenant, count in await connection.execute(counted)}
    own = waiting.pop(job.tenant, 0)
    ahead = own + sum(min(count, own + 1) for count in waiting.values())
    estimate = None if mean_s is None else mean_s * (1 + (ahead + running) / max(1, running))
    return Standing(ahead + 1, estimate)
