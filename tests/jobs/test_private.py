"""Clients' words in rows: nobody finds them on the disk of an encrypted server."""

import asyncio
import base64
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serve_app.config import WebhookConfig
from serve_app.jobs.database import Database
from serve_app.jobs.encryption import new_key
from serve_app.jobs.job import Job, JobOptions, JobState
from serve_app.jobs.keyring import Keyring
from serve_app.jobs.private import OF_JOBS, Private
from serve_app.jobs.queue import Ending, Filter, Queue, Submitted, new_id
from serve_app.jobs.tables import deliveries, jobs
from serve_app.jobs.webhooks.delivery import Webhooks
from tests import stores

OLD, NEW = os.urandom(32), os.urandom(32)
NAME, PROMPT, WORD = "divorce-of-mr-lindqvist.wav", "does-she-mention-zanzibar", "hapaxlegomenon"
HOOK = "https://hooks.example.com/secret-path-kumquat"
IDEMPOTENT = "lindqvist-tuesday"
REASON = "the-engine-said-quixotry"
CANARIES = (NAME, PROMPT, WORD, HOOK, IDEMPOTENT, REASON, "kumquat", "lindqvist", "zanzibar")


def keyring(*keys: bytes) -> Keyring:
    return Keyring.parse(",".join(base64.b64encode(key).decode() for key in keys))


class Stored:
    """A database with jobs and webhooks, as servers with different keys see it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def queue(self, *keys: bytes, encrypt: bool = True) -> Queue:
        return Queue(self.database, 10.0, self.private(*keys, encrypt=encrypt))

    def webhooks(self, *keys: bytes) -> Webhooks:
        return Webhooks(self.database, WebhookConfig(), self.private(*keys))

    def private(self, *keys: bytes, encrypt: bool = True) -> Private:
        return Private(keyring(*keys) if keys else None, encrypt and bool(keys))


def play(url: str, story: Callable[[Stored], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        stored = Stored(url)
        try:
            await story(stored)
        finally:
            await stored.database.close()

    asyncio.run(go())


def asked(key: bytes | None, idempotent: str | None = None, tenant: str = "acme") -> Submitted:
    id_ = new_id()
    sealed = keyring(key).seal(new_key(), f"{tenant}/{id_}") if key else None
    options = JobOptions(prompt=PROMPT, hotwords=[WORD], webhook=HOOK)
    return Submitted(id_, tenant, options, NAME, "audio/wav", 10, "d" * 64, idempotent, sealed)


async def with_everything(queue: Queue, key: bytes | None) -> Job:
    """A job that has ended, and whose webhook waits."""
    job, _ = await queue.submit(asked(key, IDEMPOTENT), 100)
    mine = await queue.claim()
    assert mine and mine.id == job.id
    await queue.renew(mine, warnings=[WORD])
    await queue.end(mine, Ending(JobState.FAILED, "engine_failed", REASON), warnings=[WORD])
    return mine


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def found(disk: bytes) -> list[str]:
    return [word for word in (*CANARIES, "d" * 64) if word.encode() in disk]


def test_an_encrypted_row_comes_back_whole(database_url: str) -> None:
    async def story(stored: Stored) -> None:
        queue = stored.queue(OLD)
        await with_everything(queue, OLD)
        ((job,), _) = await queue.find("acme", Filter())
        assert (job.filename, job.digest, job.idempotency_key) == (NAME, "d" * 64, IDEMPOTENT)
        assert (job.options.prompt, job.options.hotwords) == (PROMPT, [WORD])
        assert (job.warnings, job.error_message, job.state) == ([WORD], REASON, JobState.FAILED)
        (call,) = await stored.webhooks(OLD).listed("acme", None, 10)
        assert call.url == HOOK and json.loads(call.body)["data"]["error"]["message"] == REASON

    play(database_url, story)


def test_no_word_is_in_sqlites_files(tmp_path: Path) -> None:
    """Neither in the file nor in the write-ahead log, which is there while the server runs."""
    url = f"sqlite+aiosqlite:///{tmp_path}/voxray.db"

    async def story(stored: Stored) -> None:
        await with_everything(stored.queue(OLD), OLD)
        assert (tmp_path / "voxray.db-wal").stat().st_size
        assert found(on_disk(tmp_path)) == []
        await with_everything(stored.queue(), None)
        assert set(found(on_disk(tmp_path))) == {*CANARIES, "d" * 64}  # this would find them

    play(url, story)


def test_no_word_is_in_postgresqls_folder() -> None:
    """Of a server of its own: the log of another has what other tests wrote."""

    async def story(stored: Stored) -> None:
        await with_everything(stored.queue(OLD), OLD)

    with stores.postgres() as server:
        play(server.url, story)
        server.ask("CHECKPOINT")
        assert found(on_disk(server.folder / "db")) == []


def test_rows_from_before_encryption_are_read_and_sealed_when_they_change(
    database_url: str,
) -> None:
    """A job that was submitted to an older version has a key, and its words in the clear."""

    async def story(stored: Stored) -> None:
        old = await stored.queue().submit(asked(OLD, IDEMPOTENT), 100)
        plain = await stored.queue().submit(asked(None), 100)
        queue = stored.queue(OLD)
        for before in (old[0], plain[0]):
            job = await queue.get("acme", before.id)
            assert (job.filename, job.options.prompt) == (NAME, PROMPT)
        again, is_new = await queue.submit(asked(OLD, IDEMPOTENT), 100)
        assert (again.id, is_new) == (old[0].id, False)
        mine = await queue.claim()
        assert mine and mine.id == old[0].id
        await queue.renew(mine, warnings=["noisy"])
        async with stored.database.read() as connection:
            rows = await connection.execute(jobs.select().order_by(jobs.c.sequence))
            sealed, left = rows.mappings().all()
        assert {name: sealed[name] for name in OF_JOBS} == OF_JOBS
        assert sealed["idempotency_key"] != IDEMPOTENT and left["filename"] == NAME
        job = await queue.get("acme", mine.id)
        assert (job.filename, job.warnings, job.idempotency_key) == (NAME, ["noisy"], IDEMPOTENT)

    play(database_url, story)


def test_an_idempotency_key_is_found_without_being_stored(database_url: str) -> None:
    async def story(stored: Stored) -> None:
        first, _ = await stored.queue(OLD).submit(asked(OLD, IDEMPOTENT), 100)
        rotated = stored.queue(NEW, OLD)
        again, is_new = await rotated.submit(asked(NEW, IDEMPOTENT), 100)
        assert (again.id, is_new) == (first.id, False)
        other, is_new = await rotated.submit(asked(NEW, IDEMPOTENT, "other"), 100)
        assert is_new and other.tenant == "other"
        async with stored.database.read() as connection:
            rows = await connection.execute(sa.select(jobs.c.idempotency_key))
            digests = set(rows.scalars())
        assert len(digests) == 2 and IDEMPOTENT not in digests

    play(database_url, story)


def test_without_its_key_a_job_is_listed_without_words_and_fails_when_claimed(
    database_url: str,
) -> None:
    async def story(stored: Stored) -> None:
        await stored.queue(OLD).submit(asked(OLD), 100)
        for queue in (stored.queue(NEW), stored.queue()):
            ((job,), _) = await queue.find("acme", Filter())
            assert (job.filename, job.options) == ("", JobOptions())
            assert job.warnings == ["storage_key_missing"]
        mine = await stored.queue(NEW).claim()
        assert mine
        await stored.queue(NEW).end(mine, Ending(JobState.FAILED, "storage_key_missing", "no key"))
        job = await stored.queue(OLD).get("acme", mine.id)
        assert (job.filename, job.error_message) == (NAME, "no key")

    play(database_url, story)


def test_a_webhook_without_its_key_waits_for_it(database_url: str) -> None:
    async def story(stored: Stored) -> None:
        await with_everything(stored.queue(OLD), OLD)
        (call,) = await stored.webhooks(NEW).listed("acme", None, 10)
        assert (call.url, call.body) == ("", "")
        (call,) = await stored.webhooks(NEW, OLD).listed("acme", None, 10)
        assert call.url == HOOK

    play(database_url, story)


@pytest.mark.parametrize("table", [jobs, deliveries], ids=lambda it: str(it.name))
def test_words_are_of_use_only_in_their_own_row(database_url: str, table: sa.Table) -> None:
    async def story(stored: Stored) -> None:
        queue = stored.queue(OLD)
        mine = await with_everything(queue, OLD)
        async with stored.database.write() as connection:
            await connection.execute(table.update().values(tenant="other"))
        if table is jobs:
            assert (await queue.get("other", mine.id)).warnings == ["storage_damaged"]
        else:
            (call,) = await stored.webhooks(OLD).listed("other", None, 10)
            assert call.url == ""

    play(database_url, story)
