"""Jobs count once, in the transaction that ends them."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from loadtest.speech import wav
from serve_app.jobs.database import Database
from serve_app.jobs.job import JobOptions, JobState
from serve_app.jobs.queue import Ending, LeaseLost, Queue, Submitted, new_id
from serve_app.usage import table
from serve_app.usage.meter import Counted
from tests.jobs.test_jobs import config, long, running, slow
from tests.usage.served import used
from tests.waiting import wait_for


def asked(tenant: str = "acme", key: str = "k1") -> Submitted:
    options = JobOptions()
    return Submitted(
        new_id(), tenant, options, "a.wav", "audio/wav", 10, "d", None, None, "file", key
    )


def play(
    url: str, story: Callable[[Queue, Database], Coroutine[Any, Any, None]], lease_s: float = 60.0
) -> None:
    async def go() -> None:
        database = Database(url)
        try:
            await story(Queue(database, lease_s), database)
        finally:
            await database.close()

    asyncio.run(go())


async def sums(database: Database) -> table.Sums:
    async with database.read() as connection:
        return await table.of_day(connection, "acme", table.today(), "nobody")


def test_a_job_that_two_workers_have_done_counts_once(database_url: str) -> None:
    async def story(queue: Queue, database: Database) -> None:
        await queue.submit(asked(), 10)
        lost = await queue.claim()
        await asyncio.sleep(0.1)
        mine = await queue.claim()
        assert lost and mine and lost.id == mine.id
        ending = Ending(JobState.COMPLETED)
        with pytest.raises(LeaseLost):
            await queue.end(lost, ending, heard_s=60.0)
        await queue.end(mine, ending, heard_s=60.0)
        with pytest.raises(LeaseLost):
            await queue.end(mine, ending, heard_s=60.0)
        assert await sums(database) == {("k1", Counted.JOBS): 1, ("k1", Counted.AUDIO): 60}

    play(database_url, story, lease_s=0.05)


def test_what_was_transcribed_counts_however_the_job_ends(database_url: str) -> None:
    async def story(queue: Queue, database: Database) -> None:
        for state in (JobState.FAILED, JobState.CANCELLED):
            await queue.submit(asked(), 10)
            mine = await queue.claim()
            assert mine
            await queue.end(mine, Ending(state), heard_s=20.0)
        waiting, _ = await queue.submit(asked(), 10)
        await queue.cancel(waiting)
        given_back, _ = await queue.submit(asked(key="k2"), 10)
        mine = await queue.claim()
        assert mine and mine.id == given_back.id
        await queue.renew(mine, heard_s=5.0)
        await queue.requeue(mine, 0.0, 1)
        await queue.cancel(given_back)
        assert await sums(database) == {
            ("k1", Counted.JOBS): 3,
            ("k1", Counted.AUDIO): 40,
            ("k2", Counted.JOBS): 1,
            ("k2", Counted.AUDIO): 5,
        }

    play(database_url, story)


def test_jobs_that_end_together_are_all_counted(database_url: str) -> None:
    async def story(queue: Queue, database: Database) -> None:
        claimed = []
        for _ in range(8):
            await queue.submit(asked(), 10)
            claimed.append(await queue.claim())
        again = [job for job in claimed if job]
        await asyncio.gather(
            *[queue.end(job, Ending(JobState.COMPLETED), heard_s=1.0) for job in again]
        )
        assert await sums(database) == {("k1", Counted.JOBS): 8, ("k1", Counted.AUDIO): 8}

    play(database_url, story)


def test_a_recording_counts_its_seconds_and_one_from_the_cache_none(
    tmp_path: Path, talk: bytes
) -> None:
    with running(config(tmp_path)) as client:
        address = client.url.removeprefix("http://")
        client.done(wav(talk))
        seconds = len(talk) / 32_000
        assert used(address)["audio_seconds"] == pytest.approx(seconds, abs=0.1)
        client.done(wav(talk))
        found = used(address)
        assert (found["jobs"], found["audio_seconds"]) == (2, pytest.approx(seconds, abs=0.1))
        assert found["stored_bytes"] == 2 * len(wav(talk))


def test_a_running_job_that_is_cancelled_counts_what_was_transcribed(
    tmp_path: Path, talk: bytes
) -> None:
    at = config(tmp_path, windows_at_once=1)
    with running(at, transcriber=slow(0.3)) as client:
        address = client.url.removeprefix("http://")
        whole = long(talk, 300)
        id_ = client.submit(wav(whole)).json()["id"]
        wait_for(lambda: client.job(id_)["progress"] > 15, 60)
        client.delete(id_)
        client.until(id_, "cancelled")
        found = used(address)
    assert found["jobs"] == 1 and 10 < found["audio_seconds"] < 290
