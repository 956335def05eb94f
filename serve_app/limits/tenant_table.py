"""The table of tenants' settings: written by `voxray tenants`, read by all that serve."""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.jobs.database import Database, now
from serve_app.jobs.tables import tenants

Version = tuple[int, int, float]
"""Of the whole table: how many rows, how often they were written, and when last."""


class Whose(NamedTuple):
    """Whose settings a row has."""

    tenant: str
    key: str = ""
    """"": the tenant's own; `EVERY_KEY`: those of each of its keys; else one key's, by its id."""


Settings = Mapping[str, float]
"""Names of limits and of a tenant's other settings, and their values."""


class Read(NamedTuple):
    rows: dict[tuple[str, str], Settings]
    version: Version


class TenantTable:
    """Every method raises `ClientError` if the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, owner: Whose, settings: Settings) -> Settings:
        """Set these, and keep the others; returns all."""
        async with self._database.write() as connection:
            known = await _settings(connection, owner)
            changed = {**(known or {}), **settings}
            await _write(connection, owner, changed, is_new=known is None)
        return changed

    async def delete(self, owner: Whose, names: Collection[str] = ()) -> bool:
        """Remove these, or all: the configuration applies again. False if there are none."""
        async with self._database.write() as connection:
            known = await _settings(connection, owner) or {}
            rest = {name: value for name, value in known.items() if names and name not in names}
            if rest and rest != known:
                await _write(connection, owner, rest, is_new=False)
            elif known and not rest:
                await connection.execute(tenants.delete().where(_is(owner)))
        return rest != known

    async def version(self) -> Version:
        columns = (
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(tenants.c.revision), 0),
            sa.func.coalesce(sa.func.max(tenants.c.changed), 0.0),
        )
        async with self._database.read() as connection:
            count, revisions, changed = (await connection.execute(sa.select(*columns))).one()
        return int(count), int(revisions), float(changed)

    async def read(self) -> Read:
        """All rows, a tenant's own before those of its keys, and their version."""
        query = tenants.select().order_by(tenants.c.tenant, tenants.c.key)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).mappings().all()
        rows = {(row["tenant"], row["key"]): json.loads(row["settings"]) for row in found}
        revisions = sum(row["revision"] for row in found)
        changed = max((row["changed"] for row in found), default=0.0)
        return Read(dict(sorted(rows.items())), (len(found), revisions, changed))


async def _settings(connection: Any, owner: Whose) -> dict[str, float] | None:
    found = await connection.scalar(sa.select(tenants.c.settings).where(_is(owner)))
    return None if found is None else dict(json.loads(found))


async def _write(connection: Any, owner: Whose, settings: Settings, is_new: bool) -> None:
    values = {"settings": json.dumps(settings), "changed": now()}
    if is_new:
        row = {**owner._asdict(), **values, "revision": 1}
        await connection.execute(tenants.insert().values(row))
    else:
        values["revision"] = tenants.c.revision + 1
        await connection.execute(tenants.update().where(_is(owner)).values(values))


def _is(owner: Whose) -> Any:
    return (tenants.c.tenant == owner.tenant) & (tenants.c.key == owner.key)
