"""Sums of use in the database. A row's source is the process that counted it.

A process writes its whole sum of the day each time, over the one before: written twice, or late, it
is the same. So it may try again when it does not know whether a commit has succeeded. Rows without
a source are sums that are complete: those of jobs, added in the transaction that ends the job, and
those of processes a week ago, put together.
"""

import time
from collections.abc import Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database
from serve_app.jobs.tables import usage
from serve_app.usage.meter import Counted, Entry

DAY_S = 86_400
EPOCH = date(1970, 1, 1).toordinal()
COMPLETE = ""
"""The source of sums that no process writes any more."""

PUT_TOGETHER_DAYS = 7
"""Age of the rows that are put together. A process that could write nothing for so long would have
its last sum counted beside what it had written before."""

IDENTITY = ("day", "tenant", "key", "kind", "source")
Sums = dict[tuple[str, Counted], float]


def today() -> int:
    """Days since 1970-01-01, UTC."""
    return int(time.time()) // DAY_S


def day_name(day: int) -> str:
    return date.fromordinal(day + EPOCH).isoformat()


async def overwrite(connection: AsyncConnection, source: str, sums: Mapping[Entry, float]) -> None:
    """These are a process's sums so far. A greater one that is there stays: it is newer."""
    inserted = _insert(connection)
    greatest = sa.case(
        (usage.c.amount > inserted.excluded.amount, usage.c.amount),
        else_=inserted.excluded.amount,
    )
    await _upsert(connection, inserted, greatest, _rows(source, sums))


async def add(connection: AsyncConnection, who: Principal, sums: Mapping[Counted, float]) -> None:
    """Within the transaction of what is counted."""
    entries = {Entry(today(), who.tenant, who.key, it): sums[it] for it in sums if sums[it] > 0}
    await _add(connection, _rows(COMPLETE, entries))


async def put_together(connection: AsyncConnection) -> None:
    """The rows of all processes of the oldest day become one for each tenant, key and kind."""
    old = (usage.c.source != COMPLETE) & (usage.c.day < day_name(today() - PUT_TOGETHER_DAYS))
    first = sa.select(sa.func.min(usage.c.day)).where(old).scalar_subquery()
    gone = usage.delete().where(old, usage.c.day == first).returning(*usage.c)
    sums: dict[tuple[str, str, str, str], float] = {}
    for row in (await connection.execute(gone)).mappings():
        of = (row["day"], row["tenant"], row["key"], row["kind"])
        sums[of] = sums.get(of, 0.0) + row["amount"]
    rows = [dict(zip(IDENTITY, (*of, COMPLETE), strict=True), amount=sums[of]) for of in sums]
    await _add(connection, rows)


async def of_day(connection: AsyncConnection, tenant: str, day: int, but: str) -> Sums:
    """A tenant's sums by key and kind, without what the process `but` has written."""
    wanted = (usage.c.day == day_name(day), usage.c.tenant == tenant, usage.c.source != but)
    summed = sa.select(usage.c.key, usage.c.kind, sa.func.sum(usage.c.amount)).where(*wanted)
    rows = await connection.execute(summed.group_by(usage.c.key, usage.c.kind))
    return {(key, Counted(kind)): amount for key, kind, amount in rows}


async def tidy(database: Database, keep_days: int) -> None:
    """Put old rows together, and delete the oldest. Raises `ClientError`."""
    async with database.write() as connection:
        await put_together(connection)
        await connection.execute(usage.delete().where(usage.c.day < day_name(today() - keep_days)))


async def _add(connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    inserted = _insert(connection)
    await _upsert(connection, inserted, usage.c.amount + inserted.excluded.amount, rows)


def _rows(source: str, sums: Mapping[Entry, float]) -> list[dict[str, Any]]:
    return [
        {
            "day": day_name(it.day),
            "tenant": it.tenant,
            "key": it.key,
            "kind": it.what.value,
            "source": source,
            "amount": amount,
        }
        for it, amount in sums.items()
    ]


def _insert(connection: AsyncConnection) -> Any:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(usage)


async def _upsert(
    connection: AsyncConnection, inserted: Any, amount: Any, rows: list[dict[str, Any]]
) -> None:
    """In one order, so that two that add to the same rows do not wait for each other."""
    if rows:
        rows.sort(key=lambda row: [row[name] for name in IDENTITY])
        known = inserted.on_conflict_do_update(index_elements=IDENTITY, set_={"amount": amount})
        await connection.execute(known, rows)
