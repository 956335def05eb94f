"""A new key takes the place of an old one, which can be removed then."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.config import Config, StorageConfig
from serve_app.config.resume import ResumeConfig
from serve_app.conversation.histories import Histories, Owner
from serve_app.conversation.history import Item
from serve_app.errors import ClientError
from serve_app.jobs.database import Database
from serve_app.jobs.job import Job
from serve_app.jobs.objects import Objects
from serve_app.jobs.queue import Filter, Queue
from serve_app.jobs.rotation import PLAIN, Rotation, key_counts
from serve_app.jobs.storage_keys import private_of
from serve_app.jobs.tables import jobs
from serve_app.jobs.webhooks.delivery import Webhooks
from serve_app.observability.metrics import Metrics
from serve_app.security.keys import key_id
from tests.jobs.test_private import HOOK, IDEMPOTENT, NAME, NEW, OLD, asked, keyring
from tests.jobs.test_private import with_everything as end_one

THIRD = bytes(range(32))
OWNER = Owner("acme", "talk")
SAID = [Item("item_1", "message", "user", "the quick brown fox")]


def text(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


class Server:
    """What a server with these keys sees of the storage."""

    def __init__(self, database: Database, folder: Path, *keys: bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VOXRAY_STORAGE_KEY", text(*keys))
            storage = StorageConfig(objects=str(folder), encrypt=True)
            self.objects = Objects(storage)
            private = private_of(storage)
            self.database = database
            self.queue = Queue(self.database, 10.0, private)
            self.webhooks = Webhooks(self.database, Config().jobs.webhook, private)
            self.histories = Histories(self.database, storage, ResumeConfig(), Metrics())

    async def fill(self, key: bytes) -> Job:
        """One of everything."""
        job = await end_one(self.queue, key)
        await self.objects.put(job, "audio", b"what was said" * 10_000)
        await self.objects.put(job, "result", b"words of the result")
        writing = asyncio.create_task(self.histories.run())
        self.histories.keep(OWNER, 0, SAID)
        await self.histories.stored(10)
        writing.cancel()
        return job

    async def check(self, id_: str) -> None:
        """All of it can be read."""
        job = await self.queue.get("acme", id_)
        assert (job.filename, job.idempotency_key) == (NAME, IDEMPOTENT)
        assert await self.objects.read(job, "result") == b"words of the result"
        assert {it.url for it in await self.webhooks.listed("acme", None, 10)} == {HOOK}
        assert await self.histories.recall(OWNER) == SAID


See = Callable[..., Server]


def play(url: str, folder: Path, story: Callable[[See], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        database = Database(url)
        try:
            await story(lambda *keys: Server(database, folder, *keys))
        finally:
            await database.close()

    asyncio.run(go())


def stored(folder: Path) -> dict[Path, bytes]:
    """The objects."""
    return {it: it.read_bytes() for name in ("audio", "result") for it in folder.rglob(name)}


def test_after_a_rotation_the_old_key_can_be_removed(database_url: str, tmp_path: Path) -> None:
    async def story(see: See) -> None:
        old = see(OLD)
        first = await old.fill(OLD)
        before = stored(tmp_path)
        seen: list[int] = []
        rotation = Rotation(old.database, keyring(NEW, OLD))
        assert await rotation.waiting() == 3
        done = await rotation.run(seen.append)
        assert dict(done.changed) == {"recordings": 1, "webhooks": 1, "conversations": 1}
        assert not done.missing and not done.damaged and sum(seen) == 3
        assert len(before) == 2 and stored(tmp_path) == before
        assert await rotation.waiting() == 0 and not (await rotation.run(seen.append)).changed
        new = see(NEW)
        await new.check(first.id)
        again, is_new = await new.queue.submit(asked(NEW, IDEMPOTENT), 100)
        assert (again.id, is_new) == (first.id, False)
        with pytest.raises(ClientError) as refused:
            await see(OLD).objects.read(again, "result")
        assert refused.value.code == "storage_key_missing"
        assert set(await counts(new.database)) == {key_id(NEW)}

    play(database_url, tmp_path, story)


async def counts(database: Database) -> dict[str, int]:
    """Rows by key, of any kind."""
    found: dict[str, int] = {}
    for it in (await key_counts(database)).values():
        found = {id_: found.get(id_, 0) + it[id_] for id_ in {*found, *it}}
    return found


def test_a_rotation_that_was_stopped_goes_on(database_url: str, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(_: int) -> None:
        raise Stopped

    async def story(see: See) -> None:
        server = see(OLD)
        await server.fill(OLD)
        for _ in range(3):
            await server.queue.submit(asked(OLD), 100)
        with pytest.raises(Stopped):
            await Rotation(server.database, keyring(NEW, OLD)).run(stop)
        rotation = Rotation(server.database, keyring(NEW, OLD))
        assert await rotation.waiting() == 2  # the batch of recordings was done
        await rotation.run(lambda _: None)
        assert await counts(server.database) == {key_id(NEW): 6}

    play(database_url, tmp_path, story)


def test_it_seals_what_older_versions_left_plain_and_leaves_what_was_never_encrypted(
    database_url: str, tmp_path: Path
) -> None:
    async def story(see: See) -> None:
        server = see(OLD)
        plain = Queue(server.database, 10.0)
        old, _ = await plain.submit(asked(OLD, IDEMPOTENT), 100)
        await plain.submit(asked(None), 100)
        rotation = Rotation(server.database, keyring(OLD))
        assert dict((await rotation.run(lambda _: None)).changed) == {"recordings": 1}
        async with server.database.read() as connection:
            rows = (await connection.execute(jobs.select().order_by(jobs.c.sequence))).mappings()
            first, second = rows.all()
        assert (first["filename"], second["filename"]) == ("", NAME)
        assert (await server.queue.get("acme", old.id)).idempotency_key == IDEMPOTENT
        assert await counts(server.database) == {key_id(OLD): 1, PLAIN: 1}

    play(database_url, tmp_path, story)


def test_what_no_key_opens_is_counted_and_the_rest_is_changed(
    database_url: str, tmp_path: Path
) -> None:
    async def story(see: See) -> None:
        server = see(OLD)
        await see(THIRD).queue.submit(asked(THIRD), 100)
        job, _ = await server.queue.submit(asked(OLD), 100)
        broken, _ = await server.queue.submit(asked(OLD), 100)
        async with server.database.write() as connection:
            change = jobs.update().where(jobs.c.id == broken.id).values(private=b"x" * 40)
            await connection.execute(change)
        done = await Rotation(server.database, keyring(NEW, OLD)).run(lambda _: None)
        assert dict(done.missing) == {key_id(THIRD): 1}
        assert dict(done.damaged) == {"recordings": 1} and done.changed["recordings"] == 1
        assert (await see(NEW).queue.get("acme", job.id)).filename

    play(database_url, tmp_path, story)


def test_a_server_works_while_keys_are_rotated(database_url: str, tmp_path: Path) -> None:
    """Jobs are submitted, run and ended meanwhile; none is lost, and all have the new key."""

    async def story(see: See) -> None:
        server = see(NEW, OLD)
        for _ in range(30):
            await server.queue.submit(asked(OLD), 1000)
        claimed = [await server.queue.claim() for _ in range(10)]

        async def work() -> None:
            for job in claimed:
                assert job
                await server.queue.renew(job, warnings=["noisy"])
                await server.queue.submit(asked(NEW), 1000)

        rotation = Rotation(server.database, keyring(NEW, OLD))
        await asyncio.gather(work(), rotation.run(lambda _: None))
        found, _ = await see(NEW).queue.find("acme", Filter(limit=100))
        assert len(found) == 40 and {job.filename for job in found} == {NAME}
        assert sum(job.warnings == ["noisy"] for job in found) == 10

    play(database_url, tmp_path, story)


def test_a_row_that_changes_meanwhile_is_taken_again(database_url: str, tmp_path: Path) -> None:
    async def story(see: See) -> None:
        server = see(NEW, OLD)
        job, _ = await server.queue.submit(asked(OLD), 100)
        mine = await server.queue.claim()
        assert mine
        rotation = Rotation(server.database, keyring(NEW, OLD))
        right = rotation._change
        overtaken = False

        async def late(*given: object) -> int:
            nonlocal overtaken
            if not overtaken:
                await server.queue.renew(mine, warnings=["noisy"])
            overtaken = True
            return await right(*given)  # type: ignore[arg-type]

        rotation._change = late  # type: ignore[assignment,method-assign]
        done = await rotation.run(lambda _: None)
        assert done.changed["recordings"] == 1
        now = await see(NEW).queue.get("acme", job.id)
        assert (now.filename, now.warnings) == (NAME, ["noisy"])

    play(database_url, tmp_path, story)


def test_the_commands(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXRAY_DATABASE_URL", database_url)
    data = tmp_path / "data"

    async def fill(see: See) -> None:
        await see(OLD).fill(OLD)

    play(database_url, data / "objects", fill)
    args = {"storage": {"directory": str(data), "encrypt": True}}
    config = tmp_path / "serve_config.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"args": args}]}))

    def voxray(*command: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["storage", *command, "--config", str(config)])
        return done.exit_code, " ".join(done.output.split())

    monkeypatch.setenv("VOXRAY_STORAGE_KEY", text(THIRD))
    code, said = voxray("rotate-key")
    assert code == 1 and f"3 need the key {key_id(OLD)}" in said
    assert f"{key_id(OLD)} 1 1 1 no" in voxray("status")[1]
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", text(NEW, OLD))
    assert f"{key_id(OLD)} 1 1 1 yes" in voxray("status")[1]
    before = stored(data)
    code, said = voxray("rotate-key")
    assert len(before) == 2 and stored(data) == before
    assert code == 0 and "1 recordings, 1 webhooks, 1 conversations" in said
    assert f"can be removed now: {key_id(OLD)}" in said
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", text(NEW))
    assert f"{key_id(NEW)} 1 1 1 newest" in voxray("status")[1]
    assert "changed: nothing" in voxray("rotate-key")[1]
    assert key_id(NEW) in voxray("status", "--json")[1]
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", "short")
    assert voxray("rotate-key")[0] == 1


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    config = tmp_path / "serve_config.yaml"
    config.write_text(yaml.safe_dump({"applications": [{"args": {}}]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXRAY_DATABASE_URL", "postgresql+asyncpg://voxray:canary@127.0.0.1:1/x")
        done = CliRunner().invoke(app, ["storage", "status", "--config", str(config)])
    assert done.exit_code == 1 and "unavailable" in done.output and "canary" not in done.output
