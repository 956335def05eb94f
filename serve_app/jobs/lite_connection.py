"""Connections to SQLite whose end never hangs."""

import asyncio
import contextlib
import sqlite3
from typing import Any

import aiosqlite


class _Lite(sqlite3.Connection):
    """Rolls back when it is closed: SQLite keeps the transaction and its lock while anything, for
    example a cancelled task's traceback, references a statement of a closed connection."""

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.rollback()
        super().close()


class _StopsOnce(aiosqlite.Connection):
    """Asks its thread to end only once: a second request would wait forever for a thread that has
    ended.

    SQLAlchemy asks twice when a task is cancelled while it closes a connection. Then the event loop
    of that task could not end.
    """

    _stopping: asyncio.Future[Any] | None = None
    _stopped = False

    def stop(self) -> asyncio.Future[Any] | None:
        if not self._stopped:
            self._stopped = True
            self._stopping = super().stop()
        return self._stopping


def connection(file: str, **options: Any) -> aiosqlite.Connection:
    """What `aiosqlite.connect` gives, for SQLAlchemy's `async_creator_fn`."""
    made = _StopsOnce(lambda: sqlite3.connect(file, factory=_Lite, **options), 64)
    made._thread.daemon = True  # as SQLAlchemy does with its own
    return made
