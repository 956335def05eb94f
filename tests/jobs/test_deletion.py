"""What is to be deleted is not on the disk any more: on request, and after its time."""

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa

from loadtest.speech import wav
from serve_app.config import Config, StorageConfig, WebhookConfig
from serve_app.config.resume import ResumeConfig
from serve_app.conversation.histories import Histories, Owner
from serve_app.conversation.history import Item
from serve_app.errors import ClientError
from serve_app.identity.principal import ALL, Scope
from serve_app.jobs import sweeping
from serve_app.jobs.database import Database
from serve_app.jobs.deletion import Deletion
from serve_app.jobs.job import JobOptions, JobState
from serve_app.jobs.objects import Objects
from serve_app.jobs.queue import Ending, Filter, Queue, Submitted, new_id
from serve_app.jobs.tables import cache, deletions, deliveries, histories, jobs, usage
from serve_app.jobs.webhooks.delivery import Webhooks
from serve_app.observability.metrics import Metrics
from tests.fakes import FakeTranscriber, LocalReplicaSet, served
from tests.identity.keys import bearer, with_keys
from tests.jobs.test_jobs import ENDED, Client, code_of, running, slow
from tests.waiting import wait_for

NAME, WORD, TURN = "lindqvist-divorce.wav", "hapaxlegomenon", "kumquat-marmalade"
HOOK = "http://127.0.0.1:9/zanzibar-hook"
OTHERS, OTHER_HOOK = "of-another-tenant.wav", "http://127.0.0.1:9/of-another-tenant"


def config(folder: Path, **sections: Any) -> Config:
    given = {"poll_s": 0.05, "webhook": {"allow_private": True}}
    return Config.model_validate(
        {"profile": "sim", "storage": {"directory": str(folder)}, "jobs": given, **sections}
    )


def url_of(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/voxray.db"


Story = Callable[["Stored"], Coroutine[Any, Any, None]]


class Stored:
    """A storage without a server."""

    def __init__(self, url: str, folder: Path) -> None:
        storage = StorageConfig(objects=str(folder))
        self.database = Database(url)
        self.objects = Objects(storage)
        self.queue = Queue(self.database, 10.0)
        self.deletion = Deletion(self.database, self.objects)
        self.histories = Histories(self.database, storage, ResumeConfig(), Metrics())
        self.webhooks = Webhooks(self.database, WebhookConfig())

    async def keep_history(self, tenant: str) -> None:
        writing = asyncio.create_task(self.histories.run())
        self.histories.keep(Owner(tenant, f"of-{tenant}"), 0, [Item("1", "message", "user", TURN)])
        await self.histories.stored(10)
        writing.cancel()

    async def submit(self, tenant: str, name: str = NAME, hook: str = HOOK) -> str:
        """A job with its recording; its id."""
        id_, options = new_id(), JobOptions(webhook=hook)
        await self.objects.put_stream(f"{tenant}/{id_}/audio", None, _once(b"audio"))
        asked = Submitted(id_, tenant, options, name, "audio/wav", 5, "d", None, None)
        await self.queue.submit(asked, 100)
        return id_

    async def end(self, state: JobState) -> None:
        """The next job, with a webhook that waits."""
        mine = await self.queue.claim()
        assert mine
        await self.queue.end(mine, Ending(state))

    async def names(self, tenant: str) -> list[str]:
        found, _ = await self.queue.find(tenant, Filter(limit=100))
        return [job.filename for job in found]

    async def rows(self, table: Any) -> int:
        async with self.database.read() as connection:
            return len((await connection.execute(table.select())).all())


async def _once(body: bytes) -> Any:
    yield body


def play(url: str, folder: Path, story: Story) -> None:
    async def go() -> None:
        stored = Stored(url, folder)
        try:
            await story(stored)
        finally:
            await stored.database.close()

    asyncio.run(go())


def found(folder: Path) -> list[str]:
    """Which of the words are on the disk."""
    written = disk(folder)
    return [it for it in (NAME, WORD, TURN, "zanzibar-hook") if it.encode() in written]


def disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@contextmanager
def with_data(folder: Path, talk: bytes, settings: Config) -> Iterator[tuple[Client, str]]:
    """A server whose tenant has some of everything; and the id of its job."""

    async def keep(stored: Stored) -> None:
        await stored.keep_history("default")
        await stored.submit("other", OTHERS, OTHER_HOOK)
        await stored.end(JobState.COMPLETED)

    says = LocalReplicaSet(sim=FakeTranscriber(WORD))
    with running(settings, transcriber=says) as client:
        id_ = client.submit(wav(talk), NAME, webhook=HOOK, idempotency_key="once").json()["id"]
        assert client.until(id_, *ENDED)["state"] == "completed"
        play(url_of(folder), folder / "objects", keep)
        assert found(folder) == [NAME, WORD, TURN, "zanzibar-hook"]
        yield client, id_


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_WEBHOOK_SECRET", "whsec_c2VjcmV0")


def delete(client: Client, tenant: str = "default") -> httpx.Response:
    return httpx.delete(f"{client.url}/v1/tenants/{tenant}/data", timeout=60)


def test_on_request_no_word_of_a_tenant_is_left_on_the_disk(tmp_path: Path, talk: bytes) -> None:
    with with_data(tmp_path, talk, config(tmp_path)) as (client, id_):
        answer = delete(client)
        body = answer.json()
        assert (answer.status_code, body["tenant"], body["running"]) == (200, "default", 0)
        assert body["deleted"] == {
            "recordings": 1,
            "webhooks": 1,
            "conversations": 1,
            "objects": 4,  # the upload, the result, the playback copy and its index
        }
        assert code_of(client.get(f"/v1/jobs/{id_}")) == "job_not_found"
        wait_for(lambda: emptied(client, tmp_path))
        assert OTHERS.encode() in (tmp_path / "voxray.db").read_bytes()
        assert list((tmp_path / "objects/other").glob("*/audio"))
        again = delete(client)
        assert again.status_code == 200 and set(again.json()["deleted"].values()) == {0}
    assert b"tenant_deleted" in (tmp_path / "audit.log").read_bytes()


def emptied(client: Client, folder: Path) -> bool:
    """The log is emptied by the next call if somebody reads at that moment."""
    return not found(folder) or (delete(client).status_code == 0)


def test_a_job_that_runs_is_cancelled_and_deleted(tmp_path: Path, talk: bytes) -> None:
    with running(config(tmp_path), transcriber=slow(20)) as client:
        id_ = client.submit(wav(talk), NAME).json()["id"]
        client.until(id_, "running")
        answer = delete(client)
        assert answer.status_code == 200, answer.text
        assert answer.json()["deleted"]["recordings"] == 1
        assert code_of(client.get(f"/v1/jobs/{id_}")) == "job_not_found"
        wait_for(lambda: not list((tmp_path / "objects").rglob("*")))


def test_a_deletion_that_was_cut_off_is_carried_out_by_the_next_sweep(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> int:
        raise ClientError("storage_unavailable", "away")

    with with_data(tmp_path, talk, config(tmp_path)) as (client, _):
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "delete", away)
            assert code_of(delete(client)) == "storage_unavailable"
        assert list((tmp_path / "objects/default").rglob("audio"))
    monkeypatch.setattr(sweeping, "SWEEP_S", 0.2)  # SQLite's log is emptied when nobody reads
    with running(config(tmp_path)):
        wait_for(lambda: not (tmp_path / "objects/default").exists())
        wait_for(lambda: not found(tmp_path), 60)


def test_what_came_after_the_request_is_kept(database_url: str, tmp_path: Path) -> None:
    async def story(stored: Stored) -> None:
        for tenant in ("acme", "other"):
            await stored.submit(tenant)
            await stored.keep_history(tenant)
        first = await stored.deletion.request("acme")
        assert dict(first.counts) == {"recordings": 1, "conversations": 1, "objects": 1}
        await stored.submit("acme", "later.wav")
        assert not (await stored.deletion.carry_out("acme")).counts
        assert await stored.names("acme") == ["later.wav"]
        assert await stored.names("other") == [NAME]
        assert await stored.histories.recall(Owner("other", "of-other"))
        assert await stored.rows(deletions) == 0

    play(database_url, tmp_path, story)


def test_it_waits_for_a_worker_and_takes_its_webhook_with_it(
    database_url: str, tmp_path: Path
) -> None:
    async def story(stored: Stored) -> None:
        await stored.submit("acme")
        mine = await stored.queue.claim()
        assert mine
        assert await stored.deletion.request("acme") == ({}, 1)
        assert await stored.queue.renew(mine) is JobState.CANCELLING
        await stored.deletion.carry_out_all()
        assert await stored.rows(jobs) == 1 and await stored.rows(deletions) == 1
        await stored.queue.end(mine, Ending(JobState.CANCELLED))
        assert await stored.rows(deliveries) == 1
        await stored.deletion.carry_out_all()
        assert [await stored.rows(it) for it in (jobs, deliveries, deletions)] == [0, 0, 0]

    play(database_url, tmp_path, story)


def test_only_a_key_for_admins_deletes_also_its_own_tenant(tmp_path: Path, talk: bytes) -> None:
    """And the audit log says whose data it was, and which key deleted it."""
    workers = ALL - {Scope.ADMIN}
    keyed = with_keys(config(tmp_path), "boss", acme=workers)
    with served(keyed) as address:
        url = f"http://{address}"
        files = {"file": (NAME, wav(talk))}
        id_ = httpx.post(f"{url}/v1/jobs", files=files, headers=bearer("acme")).json()["id"]
        for tenant in ("acme", "boss"):
            refused = httpx.delete(f"{url}/v1/tenants/{tenant}/data", headers=bearer("acme"))
            assert code_of(refused) == "missing_scope"
        assert code_of(httpx.delete(f"{url}/v1/tenants/acme/data")) == "missing_api_key"
        mine = httpx.get(f"{url}/v1/jobs/{id_}", headers=bearer("acme"))
        assert mine.status_code == 200
        gone = httpx.delete(f"{url}/v1/tenants/acme/data", headers=bearer("boss"), timeout=30)
        assert gone.json()["deleted"]["recordings"] == 1
    (said,) = [
        event
        for line in (tmp_path / "audit.log").read_text().splitlines()
        if (event := json.loads(line))["event"] == "tenant_deleted"
    ]
    assert said["tenant"] == "acme" and said["key"]
    assert NAME not in json.dumps(said)


def test_usage_and_keys_are_kept(database_url: str, tmp_path: Path) -> None:
    """They have no words, and are what a bill needs."""

    async def story(stored: Stored) -> None:
        await stored.submit("acme")
        await stored.end(JobState.COMPLETED)
        used = await stored.rows(usage)
        assert used
        await stored.deletion.request("acme")
        assert await stored.rows(usage) == used
        assert [await stored.rows(it) for it in (jobs, deliveries, histories, cache)] == [0] * 4

    play(database_url, tmp_path, story)


def test_with_encryption_copies_of_objects_are_of_no_use_after_the_deletion(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs' keys are gone with their rows: not even who has the operator's key reads them."""
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    sealed = {"directory": str(tmp_path / "data"), "encrypt": True}
    with running(config(tmp_path, storage=sealed)) as client:
        id_ = client.submit(wav(talk), NAME).json()["id"]
        client.until(id_, *ENDED)
        copy = shutil.copytree(tmp_path / "data/objects", tmp_path / "backup")
        assert found(tmp_path) == []
        key = asyncio.run(sealed_key(tmp_path / "data", id_))
        assert key and key in disk(tmp_path / "data")
        delete(client)
        wait_for(lambda: key not in disk(tmp_path / "data") or delete(client).status_code == 0)
    assert list(copy.glob("default/*/audio"))


async def sealed_key(folder: Path, id_: str) -> bytes:
    database = Database(url_of(folder))
    try:
        async with database.read() as connection:
            asked = sa.select(jobs.c.sealed_key).where(jobs.c.id == id_)
            return bytes(await connection.scalar(asked) or b"")
    finally:
        await database.close()


@pytest.mark.parametrize("name", ["%2e%2e", "a%00b", "x" * 64, "a b", "*"])
def test_only_names_of_tenants_are_taken(tmp_path: Path, name: str) -> None:
    with running(config(tmp_path)) as client:
        assert delete(client, name).status_code == 404


def test_each_tenant_has_its_own_retention(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what belongs to a job: results, cached ones, webhooks, conversations."""
    monkeypatch.setattr(sweeping, "SWEEP_S", 0.2)
    tenants = {"default": {"retention_s": 0.001}, "other": {"retention_s": 1000}}
    with with_data(tmp_path, talk, config(tmp_path)):
        pass
    with running(config(tmp_path, tenants=tenants)) as client:
        wait_for(lambda: not (tmp_path / "objects/default").exists())
        kept = ["zanzibar-hook"]  # it still waits for its receiver
        # SQLite's log is emptied when nobody reads; on a disk that is busy this takes a while.
        wait_for(lambda: found(tmp_path) == kept, 140, every_s=0.2)
        assert client.get("/v1/jobs").json()["data"] == []
        assert list((tmp_path / "objects/other").glob("*/audio"))
        again = client.submit(wav(talk), "again.wav", idempotency_key="once")
        assert again.status_code == 202


def test_old_webhooks_and_conversations_go_by_their_tenants_time(
    database_url: str, tmp_path: Path
) -> None:
    async def story(stored: Stored) -> None:
        for tenant in ("acme", "other"):
            await stored.submit(tenant)
            await stored.end(JobState.COMPLETED)
        async with stored.database.write() as connection:
            await connection.execute(deliveries.update().values(state="delivered"))
        await stored.webhooks.forget({"acme": -1.0, "other": 100.0})
        assert [len(await stored.webhooks.listed(it, None, 9)) for it in ("acme", "other")] == [
            0,
            1,
        ]
        assert sorted(await stored.queue.tenants()) == ["acme", "other"]

    play(database_url, tmp_path, story)


def test_histories_are_kept_for_the_shorter_of_both_times() -> None:
    own = {"short": 10.0, "long": 500.0}
    keeping = sweeping.Retention(1000.0, 100.0, lambda tenant: own.get(tenant, 0.0))
    assert [keeping.jobs_s(it) for it in ("short", "long", "none")] == [10.0, 500.0, 1000.0]
    assert [keeping.histories_s(it) for it in ("short", "long", "none")] == [10.0, 100.0, 100.0]
