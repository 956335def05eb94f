"""Histories that are kept: written after a turn by somebody who nobody waits for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from serve_app.config import StorageConfig
from serve_app.config.resume import ResumeConfig
from serve_app.conversation.histories import MAX_BYTES, Histories, Owner, forget_histories
from serve_app.conversation.history import Item
from serve_app.errors import ClientError
from serve_app.jobs.database import Database
from serve_app.jobs.tables import histories
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import HISTORIES_NOT_WRITTEN

OURS = Owner("acme", "1")
KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


@asynccontextmanager
async def writing(
    database: Database, encrypt: bool = False, **config: float
) -> AsyncIterator[Histories]:
    resume = ResumeConfig.model_validate(config)
    kept = Histories(database, StorageConfig(encrypt=encrypt), resume, Metrics())
    task = asyncio.create_task(kept.run())
    yield kept
    task.cancel()


def play(url: str, story: Callable[[Database], Awaitable[None]]) -> None:
    async def go() -> None:
        database = Database(url)
        try:
            await story(database)
        finally:
            await database.close()

    asyncio.run(go())


def items(*texts: str) -> list[Item]:
    return [Item(f"item_{n}", "message", "user", text) for n, text in enumerate(texts)]


def test_what_was_kept_comes_back_to_its_owner_only(database_url: str) -> None:
    said = [*items("hello", "bye"), Item("x", "message", heard="he", spoken=True, text="hey")]

    async def story(database: Database) -> None:
        async with writing(database) as kept:
            kept.keep(OURS, 0, said[:1])
            kept.keep(OURS, 0, said)
            assert await kept.recall(OURS) == said
            kept.keep(OURS, 1, said[1:])
            assert await kept.recall(OURS) == said[1:]
            for other in (Owner("other", "1"), Owner("acme", "2")):
                with pytest.raises(ClientError) as refused:
                    await kept.recall(other)
                assert refused.value.code == "resume_refused"

    play(database_url, story)


def test_a_connection_that_was_left_behind_does_not_write_over_the_newer_one(
    database_url: str,
) -> None:
    async def story(database: Database) -> None:
        async with writing(database) as kept:
            kept.keep(OURS, 2, items("new"))
            await kept.stored(5)
            kept.keep(OURS, 1, items("old"))
            assert await kept.recall(OURS) == items("new")

    play(database_url, story)


def test_a_turn_that_waits_is_recalled_and_yields_only_to_a_newer_one(tmp_path: Path) -> None:
    async def story(database: Database) -> None:
        kept = Histories(database, StorageConfig(), ResumeConfig(), Metrics())  # nobody writes
        kept.keep(OURS, 2, items("new"))
        kept.keep(OURS, 1, items("old"))
        assert await kept.recall(OURS) == items("new")

    play(f"sqlite+aiosqlite:///{tmp_path}/waiting.db", story)


def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.conversation.histories.MOST_WAITING_BYTES", 5_000)

    async def story(database: Database) -> None:
        kept = Histories(database, StorageConfig(), ResumeConfig(), Metrics())
        for number in range(3):
            kept.keep(Owner("acme", str(number)), 0, items("a" * 2_000))
        assert HISTORIES_NOT_WRITTEN.name in str(kept._metrics.snapshot())
        assert await kept.recall(Owner("acme", "1")) == items("a" * 2_000)

    play(f"sqlite+aiosqlite:///{tmp_path}/bounded.db", story)


def test_only_the_newest_items_are_kept(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with writing(database, history_items=2) as kept:
            kept.keep(OURS, 0, items("a", "b", "c"))
            assert await kept.recall(OURS) == items("a", "b", "c")[1:]
            long = items("a" * (MAX_BYTES - 500), "b" * 1000)
            kept.keep(OURS, 0, long)
            assert await kept.recall(OURS) == long[1:]

    play(database_url, story)


def test_old_ones_are_deleted(database_url: str) -> None:
    async def story(database: Database) -> None:
        async with writing(database) as kept:
            kept.keep(OURS, 0, items("a"))
            await kept.stored(5)
            await forget_histories(database, {"acme": 100.0, "other": -1.0})
            assert await kept.recall(OURS)
            await forget_histories(database, {"acme": -1.0})
            with pytest.raises(ClientError):
                await kept.recall(OURS)

    play(database_url, story)


def test_with_encryption_no_word_is_in_the_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_STORAGE_KEY", KEY)

    async def story(database: Database) -> None:
        async with writing(database, encrypt=True) as kept:
            kept.keep(OURS, 0, items("canary"))
            assert await kept.recall(OURS) == items("canary")
            await kept.stored(30)
        async with database.read() as connection:
            body = (await connection.execute(sa.select(histories.c.body))).scalar_one()
        assert b"canary" not in body

    play(database_url, story)


def test_a_database_that_is_away_is_a_warning_and_the_next_turn_is_written(tmp_path: Path) -> None:
    file = tmp_path / "not-a-folder"
    file.write_text("")

    async def story(database: Database) -> None:
        async with writing(database) as kept:
            kept.keep(OURS, 0, items("a"))
            await kept.stored(10)
            assert HISTORIES_NOT_WRITTEN.name in str(kept._metrics.snapshot())
            file.unlink()
            kept.keep(OURS, 0, items("a", "b"))
            assert await kept.recall(OURS) == items("a", "b")

    play(f"sqlite+aiosqlite:///{file}/voxray.db", story)
