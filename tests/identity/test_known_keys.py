"""Keys of the database, as several ingress replicas know them."""

import asyncio
import base64
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import sqlalchemy as sa

from serve_app.config.auth import AuthConfig
from serve_app.errors import ClientError
from serve_app.identity import known_keys
from serve_app.identity.api_key import Peppers, ShownKey
from serve_app.identity.api_keys import ApiKey, ApiKeys, NewKey, NoSuchKey, Order
from serve_app.identity.authenticator import Authenticator
from serve_app.identity.known_keys import KnownKeys
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import Principal, Scope
from serve_app.jobs.database import Database
from serve_app.jobs.tables import api_keys
from tests.identity.keys import admitted
from tests.stores import Postgres
from tests.waiting import until

PEPPER = base64.b64encode(b"p" * 32).decode()
PEPPERS = Peppers.parse(PEPPER)
ORDER = Order("acme", [Scope.SPEAK, Scope.CHAT], name="phone")


@pytest.fixture(autouse=True)
def pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", PEPPER)


class Ingress:
    """What an ingress replica has of it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.who = Authenticator(AuthConfig(mode="keys"), self.database)
        self.ended: list[str] = []
        self.who.follow_revoked(self.ended.extend)

    def reason(self, credential: object) -> RefusalReason:
        with pytest.raises(LoginRefused) as refused:
            self.who.authenticated(str(credential))
        return refused.value.reason


@asynccontextmanager
async def ingress(url: str) -> AsyncIterator[Ingress]:
    one = Ingress(url)
    running = asyncio.create_task(one.who.run())
    try:
        yield one
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.database.close()


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


@asynccontextmanager
async def table(url: str) -> AsyncIterator[ApiKeys]:
    database = Database(url)
    try:
        yield ApiKeys(database)
    finally:
        await database.close()


async def known_to(one: Ingress, key: NewKey) -> None:
    async def is_known() -> bool:
        try:
            return bool(await admitted(one.who, str(key.shown)))
        except ClientError:
            return False

    while not await is_known():
        await asyncio.sleep(0.05)


def test_a_new_key_works_at_once_everywhere_and_a_revoked_one_nowhere_within_5_s(
    database_url: str,
) -> None:
    async def story() -> None:
        async with (
            table(database_url) as keys,
            ingress(database_url) as a,
            ingress(database_url) as b,
        ):
            await asyncio.gather(a.who.refreshed(), b.who.refreshed())
            key, other = [await keys.create(ORDER, PEPPERS) for _ in range(2)]
            for one in (a, b):
                caller = await admitted(one.who, str(key.shown))
                assert caller == Principal("acme", key.row.id, frozenset(ORDER.scopes))
            revoked = await keys.revoke(key.row.id)
            assert revoked.state(time.time()) == "revoked"
            began = time.monotonic()
            for one in (a, b):
                await until(lambda one=one: one.ended == [key.row.id])  # type: ignore[misc]
                assert one.reason(key.shown) == RefusalReason.REVOKED
                assert not one.who.still_valid(key.row.id)
                assert one.who.still_valid(other.row.id)
                one.who.authenticated(str(other.shown))
            assert time.monotonic() - began < 5

    play(story)


def test_a_key_expires_without_anybody_telling(database_url: str) -> None:
    async def story() -> None:
        async with table(database_url) as keys, ingress(database_url) as one:
            key = await keys.create(ORDER._replace(lifetime_s=3.0), PEPPERS)
            await known_to(one, key)
            await until(lambda: one.ended == [key.row.id])
            assert one.reason(key.shown) == RefusalReason.EXPIRED

    play(story)


def test_a_rotated_key_stays_valid_for_the_overlap(database_url: str) -> None:
    async def story() -> None:
        async with table(database_url) as keys, ingress(database_url) as one:
            old = await keys.create(ORDER, PEPPERS)
            new = await keys.rotate(old.row.id, 3.0, None, PEPPERS)
            assert new.row[1:4] == old.row[1:4]
            await known_to(one, new)
            one.who.authenticated(str(old.shown))
            await until(lambda: one.ended == [old.row.id])
            assert one.reason(old.shown) == RefusalReason.EXPIRED
            one.who.authenticated(str(new.shown))
            for gone in (old.row.id, "nobody"):
                with pytest.raises(NoSuchKey):
                    await keys.rotate(gone, 3.0, None, PEPPERS)
            soon = await keys.create(ORDER._replace(lifetime_s=1.0), PEPPERS)
            await keys.rotate(soon.row.id, 3600.0, None, PEPPERS)
            (kept,) = [it for it in await keys.all() if it.id == soon.row.id]
            assert kept.expires == soon.row.expires, "an overlap does not prolong"

    play(story)


def test_the_first_key_is_made_once(database_url: str) -> None:
    async def story() -> None:
        async with table(database_url) as keys:
            first = await keys.create_first(ORDER, PEPPERS)
            assert first
            assert await keys.create_first(ORDER, PEPPERS) is None
            await keys.revoke(first.row.id)
            assert await keys.create_first(ORDER, PEPPERS) is None

    play(story)


def test_a_deleted_row_ends_its_key(database_url: str) -> None:
    async def story() -> None:
        async with table(database_url) as keys, ingress(database_url) as one:
            key = await keys.create(ORDER, PEPPERS)
            await known_to(one, key)
            async with one.database.write() as connection:
                await connection.execute(sa.delete(api_keys))
            await until(lambda: one.ended == [key.row.id])
            assert one.reason(key.shown) == RefusalReason.UNKNOWN

    play(story)


def test_a_row_that_came_and_went_during_a_reading_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after, the table has the same version."""
    url = f"sqlite+aiosqlite:///{tmp_path}/voxray.db"
    version = ApiKeys.version
    made: list[NewKey] = []

    async def slow(self: ApiKeys) -> tuple[int, int, float]:
        found = await version(self)
        if not made:
            made.append(await self.create(ORDER, PEPPERS))
        return found

    monkeypatch.setattr(ApiKeys, "version", slow)

    async def story() -> None:
        async with ingress(url) as one:
            await one.who.refreshed()
            await known_to(one, made[0])
            async with one.database.write() as connection:
                await connection.execute(sa.delete(api_keys))
            await until(lambda: one.ended == [made[0].row.id])

    play(story)


def test_only_what_is_needed_is_stored(database_url: str) -> None:
    async def story() -> None:
        async with table(database_url) as keys:
            key = await keys.create(ORDER, PEPPERS)
            (row,) = await keys.all()
            assert row == key.row
            assert row.digest == PEPPERS.digest(PEPPERS.newest, key.shown)
            assert key.shown.secret not in repr(row)

    play(story)


def test_forged_keys_are_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/voxray.db"

    async def story() -> None:
        async with table(url) as keys, ingress(url) as one:
            key = await keys.create(ORDER, PEPPERS)
            other = await keys.create(ORDER, PEPPERS)
            await known_to(one, key)
            shown = key.shown
            assert one.reason(shown._replace(secret=other.shown.secret)) == RefusalReason.WRONG
            assert one.reason(shown._replace(id="0" * 12)) == RefusalReason.UNKNOWN
            assert one.reason(ShownKey("0" * 12, "")) == RefusalReason.MALFORMED
            assert one.reason("vx_") == RefusalReason.MALFORMED
            assert one.reason(str(shown) + "0") == RefusalReason.MALFORMED
            with pytest.raises(LoginRefused) as wrong:
                one.who.authenticated(str(shown._replace(secret="0" * 43)))
            assert wrong.value.key == key.row.id, "for the audit log"
            assert key.row.id not in wrong.value.message

    play(story)


def test_peppers_can_be_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/voxray.db"
    newer = base64.b64encode(os.urandom(32)).decode()

    async def story() -> None:
        async with table(url) as keys:
            old = await keys.create(ORDER, PEPPERS)
            new = await keys.create(ORDER, Peppers.parse(f"{newer},{PEPPER}"))
        monkeypatch.setenv("VOXRAY_KEY_PEPPER", f"{newer},{PEPPER}")
        async with ingress(url) as both:
            await known_to(both, old)
            await known_to(both, new)
        monkeypatch.setenv("VOXRAY_KEY_PEPPER", newer)
        async with ingress(url) as one:
            await known_to(one, new)
            assert one.reason(old.shown) == RefusalReason.PEPPER

    play(story)


@pytest.mark.parametrize("pepper", ["", "short", "not base64!", "YWJj"])
def test_without_a_pepper_nothing_starts_and_the_error_says_how_to_make_one(
    pepper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", pepper)
    with pytest.raises(ValueError, match=r'export VOXRAY_KEY_PEPPER="\$\(openssl rand'):
        Authenticator(AuthConfig(mode="keys"), Database("sqlite+aiosqlite:///unused.db"))


def test_last_use_is_written_at_most_once_a_minute(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "USED_EVERY_S", 0.2)

    async def story() -> None:
        async with table(database_url) as keys, ingress(database_url) as one:
            key, unused = [await keys.create(ORDER, PEPPERS) for _ in range(2)]
            before = time.time()
            await known_to(one, key)
            await asyncio.sleep(0.5)
            rows = {it.id: it for it in await keys.all()}
            while rows[key.row.id].last_used is None:
                await asyncio.sleep(0.1)
                rows = {it.id: it for it in await keys.all()}
            first = rows[key.row.id].last_used
            assert first is not None and before <= first <= time.time()
            assert rows[unused.row.id].last_used is None
            one.who.authenticated(str(key.shown))
            await asyncio.sleep(0.8)
            assert {it.id: it for it in await keys.all()}[key.row.id].last_used == first
            await keys.used({key.row.id: first + 100})
            assert {it.id: it for it in await keys.all()}[key.row.id].last_used == first + 100

    play(story)


def test_without_the_database_what_was_known_goes_on(postgres: Postgres) -> None:
    postgres.clear()

    async def story() -> None:
        async with table(postgres.url) as keys, ingress(postgres.url) as one:
            key = await keys.create(ORDER, PEPPERS)
            await known_to(one, key)
            postgres.stop()
            try:
                async with ingress(postgres.url) as late:
                    await asyncio.sleep(1.5)
                    assert one.who.authenticated(str(key.shown)).tenant == "acme"
                    assert one.who.still_valid(key.row.id)
                    assert one.reason(ShownKey("0" * 12, "0" * 43)) == RefusalReason.UNKNOWN
                    with pytest.raises(ClientError) as away:
                        await admitted(late.who, str(key.shown))
                    assert (away.value.code, away.value.status) == ("storage_unavailable", 503)
                    with pytest.raises(ClientError):
                        late.who.still_valid(key.row.id)
                    assert late.reason("x") == RefusalReason.UNKNOWN, "no key of ours"
                    postgres.start()
                    await known_to(late, key)
                await keys.revoke(key.row.id)
                await until(lambda: one.ended == [key.row.id])
            finally:
                postgres.stop()
                postgres.start()

    play(story)


def test_many_unknown_keys_cause_few_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/voxray.db"
    readings = 0
    version = ApiKeys.version

    async def counted(self: ApiKeys) -> tuple[int, int, float]:
        nonlocal readings
        readings += 1
        return await version(self)

    monkeypatch.setattr(ApiKeys, "version", counted)

    async def story() -> None:
        nonlocal readings
        async with ingress(url) as one:
            await one.who.refreshed()
            readings, began = 0, time.monotonic()

            async def guess(number: int) -> None:
                with pytest.raises(LoginRefused):
                    await admitted(one.who, str(ShownKey(f"{number:012}", "0" * 43)))

            for _ in range(3):
                await asyncio.gather(*map(guess, range(1000)))
            assert readings <= 2 + (time.monotonic() - began) / known_keys.SOONEST_S

    play(story)


def test_an_unknown_key_takes_as_much_work_as_a_wrong_one(tmp_path: Path) -> None:
    async def story() -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/voxray.db")
        keys = ApiKeys(database)
        known = KnownKeys(database, PEPPERS)
        key = (await keys.create(ORDER, PEPPERS)).shown
        running = asyncio.create_task(known.run(lambda _: None))
        await known.refreshed()

        def work(credential: object) -> Counter[str]:
            with pytest.raises(LoginRefused) as refused, counted() as calls:
                known.caller(str(credential))
            assert "vx_" not in str(refused.value)
            return calls

        wrong, unknown = work(key._replace(secret="0" * 43)), work(key._replace(id="0" * 12))
        assert wrong == unknown, (wrong, unknown)
        assert wrong["hmac_digest"] == wrong["compare_digest"] == 1
        assert work("vx_malformed")["hmac_digest"] == 0, "the counter counts"
        running.cancel()
        await database.close()

    play(story)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often what depends on a key's text is called."""
    calls: Counter[str] = Counter()
    costly = ("hmac_digest", "compare_digest", "crc32", "fullmatch")

    def count(_: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and (name := called.__name__.strip("_")) in costly:
            calls[name] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_a_large_table_is_read_in_pages(tmp_path: Path) -> None:
    async def story() -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/voxray.db")
        keys = ApiKeys(database)
        key = await keys.create(ORDER, PEPPERS)
        async with database.write() as connection:
            row = key.row._asdict() | {"scopes": "speak"}
            rows = [row | {"id": f"{number:012}"} for number in range(1200)]
            await connection.execute(api_keys.insert(), rows)
        pages: list[list[ApiKey]] = [page async for page in keys.pages()]
        assert [len(page) for page in pages] == [500, 500, 201]
        assert len({it.id for page in pages for it in page}) == 1201
        await database.close()

    play(story)
