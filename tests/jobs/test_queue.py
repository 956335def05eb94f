"""The rows of jobs, in SQLite and in PostgreSQL."""

import asyncio
import gc
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serve_app.errors import ClientError
from serve_app.jobs.database import LOCK_TIMEOUT_S, Database
from serve_app.jobs.job import Job, JobOptions, JobState, view
from serve_app.jobs.queue import Ending, Filter, LeaseLost, Queue, Submitted, new_id
from serve_app.jobs.result_cache import ResultCache
from tests.stores import Postgres

Story = Callable[[Queue], Coroutine[Any, Any, None]]


@asynccontextmanager
async def opened(url: str, lease_s: float = 10.0) -> AsyncIterator[Queue]:
    database = Database(url)
    try:
        yield Queue(database, lease_s)
    finally:
        await database.close()


def play(url: str, story: Story, lease_s: float = 10.0) -> None:
    async def go() -> None:
        async with opened(url, lease_s) as queue:
            await story(queue)

    asyncio.run(go())


def asked(
    tenant: str = "a", key: str | None = None, digest: str = "d", **options: Any
) -> Submitted:
    return Submitted(
        new_id(), tenant, JobOptions(**options), "a.wav", "audio/wav", 10, digest, key, None
    )


async def submit(queue: Queue, *given: Any, **options: Any) -> Job:
    job, is_new = await queue.submit(asked(*given, **options), 1000)
    assert is_new
    return job


async def claim(queue: Queue) -> Job:
    job = await queue.claim()
    assert job
    return job


async def claimed_in_time(queue: Queue) -> Job:
    """The job, as soon as somebody may have it."""
    async with asyncio.timeout(5):
        while not (job := await queue.claim()):
            await asyncio.sleep(0.01)
    return job


def test_a_job_is_claimed_renewed_and_ended_once(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        job = await submit(queue, webhook="https://example.com/hook")
        assert job.state is JobState.QUEUED and await queue.load() == 1
        mine = await claim(queue)
        assert mine.id == job.id and mine.state is JobState.RUNNING and mine.lease
        assert await queue.claim() is None
        assert await queue.renew(mine, step="prepare", progress=3.0) is JobState.RUNNING
        assert (await queue.get("a", job.id)).progress == 3.0
        await queue.end(mine, Ending(JobState.COMPLETED), duration_s=1.5, warnings=["noisy"])
        done = await queue.get("a", job.id)
        assert (done.state, done.progress, done.duration_s) == (JobState.COMPLETED, 100.0, 1.5)
        assert done.warnings == ["noisy"] and await queue.load() == 0
        with pytest.raises(LeaseLost):
            await queue.end(mine, Ending(JobState.FAILED))

    play(database_url, story)


def test_a_job_whose_worker_is_no_more_is_anothers_and_it_writes_nothing_more(
    database_url: str,
) -> None:
    async def story(queue: Queue) -> None:
        job = await submit(queue)
        dead = await claim(queue)
        mine = await claimed_in_time(queue)
        assert (mine.id, mine.losses) == (job.id, 1) and mine.lease != dead.lease
        for write in (
            queue.renew(dead),
            queue.requeue(dead, 0, 1),
            queue.end(dead, Ending(JobState.FAILED)),
        ):
            with pytest.raises(LeaseLost):
                await write
        await queue.renew(mine, losses=0)
        assert (await queue.get("a", job.id)).losses == 0

    play(database_url, story, lease_s=0.2)


@pytest.mark.parametrize("wrong_s", [-3600, 3600])
def test_a_worker_whose_clock_is_wrong_takes_no_others_job(
    database_url: str, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue)
        mine = await claim(queue)
        right = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: right() + wrong_s)
            assert await queue.claim() is None
            await queue.requeue(mine, 0, 1)
        assert (await claim(queue)).id == mine.id

    play(database_url, story)


def test_sqlites_one_writer_is_waited_for(tmp_path: Path) -> None:
    """A worker may hold the lock for long while people who speak have the processor."""

    async def story(queue: Queue) -> None:
        await submit(queue)
        slow = sqlite3.connect(tmp_path / "voxray.db", isolation_level=None)
        slow.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.5, slow.rollback)
        await submit(queue)
        slow.close()
        async with queue._database.read() as connection:
            patience_ms = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar()
        assert patience_ms == LOCK_TIMEOUT_S * 1000

    play(f"sqlite+aiosqlite:///{tmp_path}/voxray.db", story)


def test_names_that_no_database_takes_are_taken_all_the_same(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        odd = asked()._replace(filename="a\0b\u202e🎉.wav")
        job, _ = await queue.submit(odd, 1000)
        assert (await queue.get("a", job.id)).filename == "ab\u202e🎉.wav"
        for id_ in ("\0", "job\0", "🎉" * 80, "'; --"):
            with pytest.raises(ClientError, match="there is no job"):
                await queue.get("a", id_)
        await queue.end(await claim(queue), Ending(JobState.FAILED, "unreadable_audio", "a\0b"))
        assert (await queue.get("a", job.id)).error_message == "ab"

    play(database_url, story)


def test_what_is_tried_again_waits(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue)
        mine = await claim(queue)
        await queue.requeue(mine, 0.4, 1)
        assert await queue.claim() is None
        assert (await claimed_in_time(queue)).attempts == 1

    play(database_url, story)


def test_higher_priority_goes_first_then_the_oldest(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        low, high, normal, normal2 = [
            await submit(queue, priority=priority) for priority in (-1, 5, 0, 0)
        ]
        standings = await queue.standings([low, high, normal, normal2])
        assert [standings[job.id].position for job in (high, normal, normal2, low)] == [1, 2, 3, 4]
        claimed = [(await claim(queue)).id for _ in range(4)]
        assert claimed == [job.id for job in (high, normal, normal2, low)]

    play(database_url, story)


def test_many_workers_never_claim_the_same(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(12):
            await submit(queue)

        async def worker() -> list[str]:
            async with opened(database_url) as own:
                found = []
                while job := await own.claim():
                    found.append(job.id)
                return found

        claimed = [
            id_ for found in await asyncio.gather(*(worker() for _ in range(4))) for id_ in found
        ]
        assert len(claimed) == len(set(claimed)) == 12

    play(database_url, story)


def test_an_idempotency_key_gives_the_same_job(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        first, is_new = await queue.submit(asked(key="k"), 1000)
        again, is_new_again = await queue.submit(asked(key="k"), 1000)
        assert is_new and not is_new_again and again.id == first.id
        other, _ = await queue.submit(asked("b", key="k"), 1000)
        assert other.id != first.id, "keys are a tenant's own"
        for conflict in (asked(key="k", digest="other"), asked(key="k", language="de")):
            with pytest.raises(ClientError) as refused:
                await queue.submit(conflict, 1000)
            assert refused.value.code == "idempotency_conflict"

    play(database_url, story)


def test_another_tenants_jobs_are_not_there(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        job = await submit(queue)
        with pytest.raises(ClientError) as refused:
            await queue.get("b", job.id)
        assert refused.value.code == "job_not_found"
        assert (await queue.find("b", Filter()))[0] == []

    play(database_url, story)


def test_lists_have_pages_and_filters(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        jobs = [await submit(queue) for _ in range(5)]
        first, more = await queue.find("a", Filter(limit=2))
        assert [job.id for job in first] == [jobs[4].id, jobs[3].id] and more
        rest, more = await queue.find("a", Filter(limit=10, after=first[-1].id))
        assert [job.id for job in rest] == [job.id for job in jobs[2::-1]] and not more
        await claim(queue)
        running, _ = await queue.find("a", Filter(("running",)))
        assert [job.id for job in running] == [jobs[0].id]

    play(database_url, story)


def test_waiting_jobs_are_bounded(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await queue.submit(asked(), 1)
        with pytest.raises(ClientError) as refused:
            await queue.submit(asked(), 1)
        assert refused.value.code == "too_many_jobs" and refused.value.retry_after_s
        await queue.submit(asked("b"), 1)

    play(database_url, story)


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_by_its_worker(
    database_url: str,
) -> None:
    async def story(queue: Queue) -> None:
        waiting, running = await submit(queue, priority=-1), await submit(queue)
        mine = await claim(queue)
        assert mine.id == running.id
        after = await queue.cancel(waiting)
        assert after and after.state is JobState.CANCELLED
        after = await queue.cancel(running)
        assert after and after.state is JobState.CANCELLING
        assert await queue.renew(mine) is JobState.CANCELLING
        await queue.end(mine, Ending(JobState.COMPLETED))
        assert (await queue.get("a", running.id)).state is JobState.CANCELLED, "it was asked to end"
        assert await queue.cancel(running) is None, "an ended one is forgotten"
        with pytest.raises(ClientError):
            await queue.get("a", running.id)

    play(database_url, story)


def test_a_write_that_is_cancelled_keeps_nobody_waiting(database_url: str) -> None:
    """Its traceback knows the connection's statements until Python's collector comes by."""

    async def story(queue: Queue) -> None:
        await submit(queue)
        cancelled: list[object] = []
        job = await claim(queue)
        for step in range(60):
            renewal = asyncio.create_task(queue.renew(job, progress=1.0))
            await asyncio.sleep(step % 12 * 0.0007)
            renewal.cancel()
            cancelled += await asyncio.gather(renewal, return_exceptions=True)
            async with asyncio.timeout(10):
                await queue.renew(job, progress=2.0)
        assert any(isinstance(one, asyncio.CancelledError) for one in cancelled)

    gc.disable()
    try:
        play(database_url, story)
    finally:
        gc.enable()


def test_a_job_that_is_being_cancelled_when_its_worker_dies_is_cancelled_by_the_next(
    database_url: str,
) -> None:
    async def story(queue: Queue) -> None:
        job = await submit(queue)
        await claim(queue)
        await queue.cancel(job)
        assert (await claimed_in_time(queue)).state is JobState.CANCELLING

    play(database_url, story, lease_s=0.2)


def test_results_are_remembered_for_their_tenant_only_and_bounded(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        ids, cache = [], ResultCache(queue._database)
        for number in range(3):
            await submit(queue)
            mine = await claim(queue)
            await queue.end(mine, Ending(JobState.COMPLETED, fingerprint=f"f{number}"))
            ids.append(mine.id)
        known = await cache.remembered("a", "f0")
        assert known and known.id == ids[0] and await cache.remembered("b", "f0") is None
        await cache.forget(2)
        assert await cache.remembered("a", "f1") is None, "used least lately"
        assert await cache.remembered("a", "f0") and await cache.remembered("a", "f2")
        await queue.cancel(await queue.get("a", ids[0]))
        assert await cache.remembered("a", "f0") is None, "its job was deleted"

    play(database_url, story)


def test_jobs_older_than_the_retention_are_listed_for_deletion(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue)
        await queue.end(await claim(queue), Ending(JobState.FAILED, "x", "y"))
        assert await queue.expired({"a": 60}) == []
        (old,) = await queue.expired({"a": -1})
        assert await queue.expired({"b": -1}) == await queue.expired({}) == []
        assert old.error_code == "x" and await queue.known([old.id, "other"]) == {old.id}

    play(database_url, story)


def test_a_view_says_how_long_it_may_take(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue)
        mine = await claim(queue)
        await asyncio.sleep(0.2)  # by the database's clock, which cannot be set
        await queue.renew(mine, progress=50.0)
        running = await queue.get("a", mine.id)
        assert 0.1 < view(running, None, time.time())["estimate_s"] < 2
        await queue.end(mine, Ending(JobState.COMPLETED))
        waiting = await submit(queue)
        standing = (await queue.standings([waiting]))[waiting.id]
        assert standing.position == 1 and standing.estimate_s and standing.estimate_s > 0.1

    play(database_url, story)


def test_a_database_that_is_away_is_a_503_and_comes_back(postgres: Postgres) -> None:
    postgres.clear()

    async def story(queue: Queue) -> None:
        job = await submit(queue)
        mine = await claim(queue)
        postgres.stop()
        try:
            for ask in (queue.get("a", job.id), queue.submit(asked(), 10), queue.renew(mine)):
                with pytest.raises(ClientError) as refused:
                    await ask
                assert refused.value.code == "storage_unavailable" and refused.value.retry_after_s
        finally:
            postgres.start()
        assert await queue.renew(mine) is JobState.RUNNING, "nobody took it meanwhile"

    play(postgres.url, story)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, None])
def test_a_broken_database_file_is_a_503(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "voxray.db"
    file.write_bytes(content) if content else file.mkdir()

    async def story(queue: Queue) -> None:
        with pytest.raises(ClientError) as refused:
            await queue.submit(asked(), 10)
        assert refused.value.code == "storage_unavailable"

    play(f"sqlite+aiosqlite:///{file}", story)


def test_tables_of_another_version_are_no_reason_to_wait(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue)
        async with queue._database.write() as connection:
            await connection.execute(sa.text("ALTER TABLE jobs RENAME COLUMN attempts TO tries"))
        with pytest.raises(sa.exc.DBAPIError, match="attempts"):
            await submit(queue)

    play(database_url, story)


def test_migrations_run_once_however_many_start_together(database_url: str) -> None:
    async def go() -> None:
        databases = [Database(database_url) for _ in range(5)]
        await asyncio.gather(*(database.migrate() for database in databases))
        for database in databases:
            await database.close()

    asyncio.run(go())


def test_the_tables_are_what_the_migrations_make(database_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from serve_app.jobs.tables import metadata

    async def go() -> None:
        database = Database(database_url)
        async with database.read() as connection:
            difference = await connection.run_sync(
                lambda it: compare_metadata(
                    MigrationContext.configure(it, opts={"include_name": _is_ours}), metadata
                )
            )
        assert difference == []
        await database.close()

    asyncio.run(go())


def _is_ours(name: str | None, kind: str, _: Any) -> bool:
    """What finds passages is another thing in each database; tests/jobs/test_search.py tests it."""
    own = name in ("passages_of_job", "passages") or kind.endswith("constraint")
    return own or not (name == "words" or (name or "").startswith("passages_"))


def test_the_longest_wait_is_that_of_the_first_job_that_no_worker_has(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        assert await queue.oldest_s() == 0
        await submit(queue)
        await asyncio.sleep(0.05)
        await submit(queue)
        assert 0.05 <= await queue.oldest_s() < 5
        await claim(queue)
        assert await queue.oldest_s() < 5
        await claim(queue)
        assert await queue.oldest_s() == 0

    play(database_url, story)
