"""Sums in both databases: written again, late or twice, they are the same."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database
from serve_app.jobs.tables import usage
from serve_app.usage import table
from serve_app.usage.ledger import Ledger
from serve_app.usage.meter import Counted, Entry, Meter

ACME = Principal("acme", "k1")
DAY = table.today()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def of_day(database: Database, day: int = DAY, but: str = "nobody") -> table.Sums:
    async with database.read() as connection:
        return await table.of_day(connection, "acme", day, but)


async def overwrite(database: Database, source: str, day: int, amount: float) -> None:
    async with database.write() as connection:
        entry = Entry(day, "acme", "k1", Counted.AUDIO)
        await table.overwrite(connection, source, {entry: amount})


def test_sums_of_several_processes_add_up_and_the_greater_one_of_a_process_stays(
    database_url: str,
) -> None:
    async def go() -> None:
        async with opened(database_url) as database:
            for source, amount in (("a", 5.0), ("b", 2.0), ("a", 7.0), ("a", 6.0), ("a", 7.0)):
                await overwrite(database, source, DAY, amount)
            assert await of_day(database) == {("k1", Counted.AUDIO): 9.0}
            assert await of_day(database, but="a") == {("k1", Counted.AUDIO): 2.0}

    asyncio.run(go())


def test_what_is_added_within_a_transaction_counts_only_if_that_succeeds(
    database_url: str,
) -> None:
    async def go() -> None:
        async with opened(database_url) as database:
            for fails in (False, True, False):
                with pytest.raises(ZeroDivisionError) if fails else nullcontext():
                    async with database.write() as connection:
                        await table.add(connection, ACME, {Counted.JOBS: 1, Counted.AUDIO: 2.5})
                        if fails:
                            raise ZeroDivisionError
            expected = {("k1", Counted.JOBS): 2.0, ("k1", Counted.AUDIO): 5.0}
            assert await of_day(database) == expected

    asyncio.run(go())


def test_old_rows_are_put_together_and_sum_up_to_the_same(database_url: str) -> None:
    async def go() -> None:
        async with opened(database_url) as database:
            ages = (0, 7, 8, 9)
            for age in ages:
                for source in "abc":
                    await overwrite(database, source, DAY - age, 1.0)
            for _ in range(3):  # a day each
                await asyncio.gather(*[put_together(database) for _ in range(3)])
            for age in ages:
                assert await of_day(database, DAY - age) == {("k1", Counted.AUDIO): 3.0}
            assert await rows(database) == {0: 3, 7: 3, 8: 1, 9: 1}

    asyncio.run(go())


async def put_together(database: Database) -> None:
    async with database.write() as connection:
        await table.put_together(connection)


async def rows(database: Database) -> dict[int, int]:
    """How many there are, by their age in days."""
    found: dict[int, int] = defaultdict(int)
    async with database.read() as connection:
        for day in (await connection.execute(usage.select())).scalars():
            found[next(n for n in range(10) if table.day_name(DAY - n) == day)] += 1
    return found


class Unsure(Database):
    """Loses its connection at a commit, before or after that has succeeded."""

    loses: Iterator[str | None] = iter(())

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Any]:
        lost = next(self.loses, None)
        if lost == "before":
            raise ClientError("storage_unavailable", "away")
        async with super().write() as connection:
            yield connection
        if lost == "after":
            raise ClientError("storage_unavailable", "away")


KEYS = st.sampled_from(["k1", "k2"])
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), KEYS, st.integers(1, 1000)),
    st.tuples(st.sampled_from(["write", "crash"]), st.integers(0, 2)),
    st.tuples(st.just("day")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=40), st.lists(st.sampled_from([None, "before", "after"])))
def test_totals_are_the_sum_of_what_was_added_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[Any, ...]],
    losses: list[str | None],
) -> None:
    """Three processes add, write, lose their connection, crash; days pass. What crashed before it
    was written is lost, and at most that."""

    async def go() -> None:
        folder = tmp_path_factory.mktemp("usage")
        async with opened_unsure(f"sqlite+aiosqlite:///{folder}/voxray.db", losses) as database:
            day, sure, lost = [DAY], defaultdict[Any, float](float), defaultdict[Any, float](float)
            meters = [Meter(lambda: day[0]) for _ in range(3)]
            ledgers = [Ledger(meter, database) for meter in meters]
            known = [dict[Entry, float]() for _ in range(3)]
            for step, *args in steps:
                match step, args:
                    case "add", (at, key, amount):
                        meters[at].add(Principal("acme", key), Counted.AUDIO, amount)
                        sure[day[0], key] += amount
                    case "write", (at,):
                        sums = meters[at].unwritten()
                        if await written(ledgers[at]):
                            known[at] |= sums
                    case "crash", (at,):
                        for entry, amount in meters[at].unwritten().items():
                            lost[entry.day, entry.key] += amount - known[at].get(entry, 0.0)
                        meters[at] = Meter(lambda: day[0])
                        ledgers[at], known[at] = Ledger(meters[at], database), {}
                    case "day", _:
                        day[0] += 1
            for ledger in ledgers:
                while not await written(ledger):
                    continue
            for (on, key), amount in sure.items():
                found = (await of_day(database, on)).get((key, Counted.AUDIO), 0.0)
                assert amount - lost[on, key] <= found <= amount

    asyncio.run(go())


@asynccontextmanager
async def opened_unsure(url: str, losses: list[str | None]) -> AsyncIterator[Database]:
    database = Unsure(url)
    database.loses = iter(losses)
    try:
        yield database
    finally:
        await database.close()


async def written(ledger: Ledger) -> bool:
    try:
        await ledger.write()
    except ClientError:
        return False
    return True
