"""Which tenant's job is claimed next, in SQLite and in PostgreSQL."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from loadtest.speech import wav
from serve_app.jobs.database import Database
from serve_app.jobs.job import Job, JobState
from serve_app.jobs.queue import Ending, Queue
from serve_app.jobs.shares import BYTES_A_SECOND
from serve_app.jobs.tables import shares
from tests.fakes import FakeTranscriber, LocalReplicaSet, served, working
from tests.identity.keys import bearer, with_keys
from tests.jobs.test_jobs import Client, config
from tests.jobs.test_queue import asked, claim
from tests.waiting import wait_for

WEIGHTS = {"heavy": 3.0}


def play(url: str, story: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        database = Database(url)
        try:
            await story(Queue(database, 30.0, None, lambda tenant: WEIGHTS.get(tenant, 1.0)))
        finally:
            await database.close()

    asyncio.run(go())


async def submit(queue: Queue, tenant: str, seconds: float = 60.0, **options: Any) -> Job:
    size = round(seconds * BYTES_A_SECOND)
    job, _ = await queue.submit(asked(tenant, **options)._replace(size=size), 1000)
    return job


async def claimed(queue: Queue, count: int) -> list[str]:
    return [(await claim(queue)).tenant for _ in range(count)]


async def counters(queue: Queue) -> dict[str, float]:
    async with queue._database.read() as connection:
        rows = await connection.execute(sa.select(shares.c.tenant, shares.c.counter))
        return {tenant: counter for tenant, counter in rows}


def test_tenants_take_turns_however_many_jobs_one_has(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(6):
            await submit(queue, "greedy")
        await claim(queue)
        for _ in range(2):
            await submit(queue, "quiet")
        assert Counter(await claimed(queue, 4)) == {"quiet": 2, "greedy": 2}
        assert await claimed(queue, 3) == ["greedy"] * 3, "what others do not want is anybody's"

    play(database_url, story)


def test_seconds_count_and_not_jobs(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(3):
            await submit(queue, "long", 600.0)
        for _ in range(20):
            await submit(queue, "short", 60.0)
        assert Counter(await claimed(queue, 11)) == {"long": 1, "short": 10}

    play(database_url, story)


def test_weights_are_shares(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(12):
            await submit(queue, "heavy")
            await submit(queue, "light")
        assert Counter(await claimed(queue, 12)) == {"heavy": 9, "light": 3}

    play(database_url, story)


def test_who_was_away_has_saved_nothing(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(20):
            await submit(queue, "greedy")
        await claimed(queue, 10)
        for _ in range(10):
            await submit(queue, "quiet")
        assert Counter(await claimed(queue, 10)) == {"quiet": 5, "greedy": 5}

    play(database_url, story)


def test_a_position_counts_the_turns_of_others_and_not_their_queue(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(9):
            await submit(queue, "greedy")
        first, second = [await submit(queue, "quiet") for _ in range(2)]
        standings = await queue.standings([first, second])
        assert [standings[job.id].position for job in (first, second)] == [2, 4]

    play(database_url, story)


def test_priority_is_among_a_tenants_own_jobs(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue, "quiet", priority=-5)
        urgent = [await submit(queue, "greedy", priority=priority) for priority in (0, 9)]
        found = [await claim(queue) for _ in range(3)]
        assert [job.id for job in found if job.tenant == "greedy"] == [
            urgent[1].id,
            urgent[0].id,
        ]
        assert "quiet" in {job.tenant for job in found[:2]}

    play(database_url, story)


def test_a_claim_beside_others_is_for_those_who_have_none_running(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue, "greedy")
        await submit(queue, "greedy")
        assert (await claim(queue)).tenant == "greedy"
        assert await queue.claim(beside=True) is None
        await submit(queue, "quiet")
        await submit(queue, "quiet")
        beside = await queue.claim(beside=True)
        assert beside and beside.tenant == "quiet"
        assert await queue.claim(beside=True) is None

    play(database_url, story)


def test_the_length_of_a_recording_is_charged_once_and_as_it_was(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue, "a", 100.0)
        await submit(queue, "b", 100.0)
        job = await claim(queue)
        await queue.requeue(job, 0.0, 1)
        async with asyncio.timeout(10):
            while (again := await claim(queue)).id != job.id:
                pass
        assert (await counters(queue))[job.tenant] == 100.0
        await queue.end(again, Ending(JobState.COMPLETED), duration_s=7.0)
        assert (await counters(queue))[job.tenant] == 7.0

    play(database_url, story)


def test_tenants_without_jobs_are_forgotten(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        await submit(queue, "done", 10.0)
        await submit(queue, "busy", 100.0)
        mine = [await claim(queue), await claim(queue)]
        await queue.forget_shares()
        assert set(await counters(queue)) == {"done", "busy"}
        for job in sorted(mine, key=lambda it: it.size):
            await queue.end(job, Ending(JobState.FAILED))
            await queue.forget_shares()
            assert set(await counters(queue)) == ({"busy"} if job.tenant == "done" else set())

    play(database_url, story)


def test_many_workers_share_and_never_claim_the_same(database_url: str) -> None:
    async def story(queue: Queue) -> None:
        for _ in range(20):
            await submit(queue, "greedy")
        for _ in range(6):
            await submit(queue, "quiet")

        async def worker(database: Database) -> list[Job]:
            own = Queue(database, 30.0)
            return [await claim(own) for _ in range(4)]

        databases = [Database(str(queue._database._url.render_as_string(False))) for _ in range(3)]
        try:
            found = [job for each in await asyncio.gather(*map(worker, databases)) for job in each]
        finally:
            for database in databases:
                await database.close()
        assert len({job.id for job in found}) == 12
        assert 4 <= [job.tenant for job in found].count("quiet") <= 6

    play(database_url, story)


def test_more_places_are_not_more_polls(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred claims at once would take all connections to the database."""
    claims, claim = list[bool](), Queue.claim

    async def counted(queue: Queue, beside: bool = False) -> Job | None:
        claims.append(beside)
        return await claim(queue, beside)

    monkeypatch.setattr(Queue, "claim", counted)
    at = config(tmp_path, scale={"sessions_per_replica": 100})
    with (
        served(at) as address,
        working(at, transcriber=LocalReplicaSet(mute=FakeTranscriber(mute=True))),
    ):
        client = Client(address)
        client.until(client.submit(wav(talk)).json()["id"], "running")
        claims.clear()
        time.sleep(10 * at.jobs.poll_s)
        assert 0 < len(claims) <= 10, "one after the other, `poll_s` apart"
        assert not any(claims), "while there are places, none is beside them"


class Tenant(httpx.Client):
    """A client with the key of one tenant."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(base_url=f"http://{address}", headers=bearer(name), timeout=60)
        self._ids: list[str] = []

    def submit(self, recording: bytes, count: int) -> None:
        for _ in range(count):
            answer = self.post("/v1/jobs", files={"file": ("talk.wav", recording)})
            self._ids.append(answer.raise_for_status().json()["id"])

    @property
    def states(self) -> Counter[str]:
        return Counter(self.get(f"/v1/jobs/{id_}").json()["state"] for id_ in self._ids)


def test_a_job_need_not_wait_for_the_end_of_anothers(tmp_path: Path, talk: bytes) -> None:
    """A greedy tenant has taken all places of a worker with jobs that do not end."""
    at = with_keys(config(tmp_path), "greedy", "quiet")
    places, engine = at.jobs.scale.sessions_per_replica, FakeTranscriber(mute=True)
    with (
        served(at) as address,
        working(at, transcriber=LocalReplicaSet(mute=engine)),
        Tenant(address, "greedy") as greedy,
        Tenant(address, "quiet") as quiet,
    ):
        greedy.submit(wav(talk), places + 2)
        wait_for(lambda: greedy.states["running"] == places)
        quiet.submit(wav(talk), 2)
        wait_for(lambda: quiet.states["running"])
        time.sleep(4 * at.jobs.poll_s)
        assert greedy.states == {"running": places, "queued": 2}
        assert quiet.states == {"running": 1, "queued": 1}
