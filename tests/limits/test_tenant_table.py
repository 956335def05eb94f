"""Limits in the database: written by one process, followed by others."""

import asyncio
import itertools

import pytest

from serve_app.config import Config
from serve_app.jobs.database import Database
from serve_app.limits import known_settings
from serve_app.limits.known_settings import KnownSettings
from serve_app.limits.settings import EVERY_KEY, TenantSettings
from serve_app.limits.tenant_table import TenantTable, Whose
from tests.stores import Postgres
from tests.waiting import until

ACME, KEY, EACH = Whose("acme"), Whose("acme", "vx_1"), Whose("acme", EVERY_KEY)


def test_limits_are_set_one_by_one_and_removed(database_url: str) -> None:
    async def go() -> None:
        database = Database(database_url)
        table = TenantTable(database)
        assert await table.set(ACME, {"sessions": 5}) == {"sessions": 5}
        assert await table.set(ACME, {"conversations": 2}) == {"sessions": 5, "conversations": 2}
        await table.set(KEY, {"sessions": 1})
        await table.set(EACH, {"sessions": 3})
        read = await table.read()
        assert list(read.rows) == [ACME, EACH, KEY] and read.rows[KEY] == {"sessions": 1}
        assert read.version == await table.version()
        assert await table.delete(ACME, ["sessions"])
        assert (await table.read()).rows[ACME] == {"conversations": 2}
        assert not await table.delete(ACME, ["sessions"])
        assert await table.delete(KEY) and not await table.delete(KEY)
        assert list((await table.read()).rows) == [ACME, EACH]
        await database.close()

    asyncio.run(go())


def test_every_change_makes_another_version(database_url: str) -> None:
    async def go() -> None:
        database = Database(database_url)
        table = TenantTable(database)
        versions = [await table.version()]
        for change in (
            table.set(ACME, {"sessions": 5}),
            table.set(ACME, {"sessions": 5}),
            table.set(KEY, {"sessions": 5}),
            table.delete(KEY),
            table.set(EACH, {"sessions": 5}),
        ):
            await change
            versions.append(await table.version())
        assert all(one != next_ for one, next_ in itertools.pairwise(versions))
        await database.close()

    asyncio.run(go())


def settings() -> TenantSettings:
    return TenantSettings(Config(tenants={"acme": {"limits": {"sessions": 9}}}).tenants)


def test_a_replica_follows_and_keeps_what_it_knows(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.clear()
    monkeypatch.setattr(known_settings, "REFRESH_S", 0.05)

    async def go() -> None:
        database, here = Database(postgres.url), settings()
        running = asyncio.create_task(KnownSettings(database, here).run())
        table = TenantTable(database)
        await table.set(ACME, {"sessions": 5})
        await until(lambda: here.of("acme").limits.sessions == 5)
        postgres.stop()
        await asyncio.sleep(0.3)
        assert here.of("acme").limits.sessions == 5, "the database is away"
        postgres.start()
        await table.delete(ACME)
        await until(lambda: here.of("acme").limits.sessions == 9)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await database.close()

    asyncio.run(go())
