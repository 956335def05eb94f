"""Connections to SQLite end, however they are told to."""

import asyncio
from pathlib import Path

from serve_app.jobs.lite_connection import connection


def test_one_that_is_told_to_stop_twice_ends(tmp_path: Path) -> None:
    """As SQLAlchemy does when a task is cancelled while it closes one."""

    async def story() -> None:
        opened = await connection(str(tmp_path / "a.db"))
        closing = asyncio.create_task(opened.close())
        await asyncio.sleep(0)
        first = opened.stop()
        await asyncio.wait_for(closing, 10)
        assert first and first is opened.stop()
        await asyncio.wait_for(first, 10)

    asyncio.run(story())


def test_a_close_that_is_cancelled_after_a_stop_ends(tmp_path: Path) -> None:
    async def story() -> None:
        opened = await connection(str(tmp_path / "a.db"))
        closing = asyncio.create_task(opened.close())
        await asyncio.sleep(0)
        opened.stop()
        opened._thread.join(10)  # the thread has ended before the close goes on
        closing.cancel()
        await asyncio.wait([closing], timeout=10)
        assert closing.done()

    asyncio.run(story())


def test_what_was_not_committed_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        one = await connection(str(tmp_path / "a.db"), isolation_level=None)
        await one.execute("CREATE TABLE t (a)")
        await one.execute("BEGIN IMMEDIATE")
        await one.execute("INSERT INTO t VALUES (1)")
        cursor = await one.execute("SELECT * FROM t")
        await one.close()
        other = await connection(str(tmp_path / "a.db"), isolation_level=None, timeout=0)
        await other.execute("BEGIN IMMEDIATE")  # the lock is free, though a cursor is still there
        rows = await (await other.execute("SELECT count(*) FROM t")).fetchone()
        assert rows and rows[0] == 0
        await other.close()
        del cursor

    asyncio.run(story())
