"""What was used, from the database: by day, tenant and key."""

import csv
import io
from collections.abc import Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.jobs.tables import jobs, usage
from serve_app.usage.meter import Counted
from serve_app.usage.table import day_name, today

Group = Literal["day", "tenant", "key"]
STORED = "stored_bytes"
AMOUNTS = (*(it.value for it in Counted), STORED)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet would calculate a text that begins so."""


class UsageAsked(NamedTuple):
    first: date
    last: date
    by: tuple[Group, ...]
    tenant: str | None
    """None: all."""
    limit: int
    offset: int


async def report(connection: AsyncConnection, asked: UsageAsked) -> list[dict[str, Any]]:
    """A row for each group that has used something, in order; one more than `limit` if there are
    more."""
    used = _used(asked).subquery()
    groups = [used.c[name] for name in asked.by]
    sums = [_sum_of(used, kind) for kind in AMOUNTS]
    wanted = sa.select(*groups, *sums).limit(asked.limit + 1).offset(asked.offset)
    if groups:
        wanted = wanted.group_by(*groups).order_by(*groups)
    rows = await connection.execute(wanted)
    return [_rounded(dict(row)) for row in rows.mappings()]


def _used(asked: UsageAsked) -> Any:
    """With what is stored now, as of today."""
    columns = (usage.c.day, usage.c.tenant, usage.c.key, usage.c.kind, usage.c.amount)
    between = usage.c.day.between(asked.first.isoformat(), asked.last.isoformat())
    used = sa.select(*columns).where(between)
    now = day_name(today())
    size = sa.cast(jobs.c.size, sa.Double)
    stored = sa.select(sa.literal(now), jobs.c.tenant, jobs.c.key, sa.literal(STORED), size)
    stored = stored.where(jobs.c.size > 0)
    if asked.tenant is not None:
        used = used.where(usage.c.tenant == asked.tenant)
        stored = stored.where(jobs.c.tenant == asked.tenant)
    is_asked = asked.first.isoformat() <= now <= asked.last.isoformat()
    return sa.union_all(used, stored) if is_asked else used


def _sum_of(used: Any, kind: str) -> Any:
    amounts = sa.case((used.c.kind == kind, used.c.amount), else_=0.0)
    return sa.func.coalesce(sa.func.sum(amounts), 0.0).label(kind)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the millisecond; all others are whole."""
    for kind in AMOUNTS:
        row[kind] = round(row[kind], 3) if kind == Counted.AUDIO else round(row[kind])
    return row


async def stored_bytes(connection: AsyncConnection, tenant: str) -> int:
    """Of a tenant's recordings."""
    size = sa.select(sa.func.coalesce(sa.func.sum(jobs.c.size), 0)).where(jobs.c.tenant == tenant)
    return int(await connection.scalar(size) or 0)


def as_csv(by: Sequence[Group], rows: Sequence[dict[str, Any]]) -> str:
    """With a line of names."""
    file = io.StringIO()
    writer = csv.DictWriter(file, [*by, *AMOUNTS])
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
