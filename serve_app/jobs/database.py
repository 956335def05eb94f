"""The database: SQLite in a file, or PostgreSQL by URL; its failures have one of two error codes.

In SQLite, write transactions begin with `BEGIN IMMEDIATE`: a read transaction that later writes
fails if another has written since. SQLite runs in WAL mode and syncs every commit: confirmed
changes are on disk. What is deleted is overwritten.
"""

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from serve_app.errors import ClientError
from serve_app.extras import check_driver
from serve_app.security.owner_only import make_folder, owner_only, tighten

RETRY_AFTER_S = 5
CONNECT_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 20.0
"""SQLite has one writer at a time; a writing worker has a lower priority than live speech."""

PATIENCE = f"busy_timeout={LOCK_TIMEOUT_S * 1000:.0f}"

MIGRATION_LOCK = 0x766F78  # "vox"
FOREIGN = ("no such column", "no such table", "has no column")
"""SQLite errors for tables of another version of voxray."""

OURS = ("objects", "audit.log")
"""How the names of what else voxray keeps there begin."""

FULL = ("disk is full", "no space left", "os error 28", "disk quota", "disk full")


def away(what: str) -> ClientError:
    return ClientError(
        "storage_unavailable", f"the {what} is unavailable; retry later", RETRY_AFTER_S
    )


def full() -> ClientError:
    return ClientError("storage_full", "the storage for recordings is full")


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Raises a store's errors as `ClientError` `storage_full` or `storage_unavailable`."""
    try:
        yield
    except (sa.exc.IntegrityError, ClientError):
        raise
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError, TimeoutError) as error:
        message = str(error).lower()
        if isinstance(error, sa.exc.ProgrammingError) or any(it in message for it in FOREIGN):
            raise  # a retry does not help: wrong tables, or a wrong query
        raise (full() if any(text in message for text in FULL) else away(what)) from error


class now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock: the same for every machine."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_in_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_in_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


class Database:
    """Connections to the database of `url`, migrated before it is first used."""

    def __init__(self, url: str) -> None:
        """Raises `MissingExtra` if the URL needs a package that is not installed."""
        self._url = make_url(url)
        self._lite = self._url.get_backend_name() == "sqlite"
        check_driver(url)
        # An error's text is for logs; parameters may be clients' words.
        options: dict[str, Any] = {"pool_pre_ping": True, "hide_parameters": True}
        if self._lite:
            from serve_app.jobs.lite_connection import connection  # not every server has the driver

            options["connect_args"] = {"timeout": LOCK_TIMEOUT_S, "async_creator_fn": connection}
        else:
            options["connect_args"] = {
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": COMMAND_TIMEOUT_S,
            }
            options["pool_timeout"] = CONNECT_TIMEOUT_S
        self._engine = create_async_engine(self._url, **options)
        if self._lite:
            sa.event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine.sync_engine, "begin", _begin_sqlite)
        self._migrated = False
        self._migrating = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises `ClientError` if the database is unavailable."""
        with storage_errors("database"):
            await self.migrate()
            async with self._engine.connect() as connection:
                await connection.execution_options(read=True)
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end. Raises `ClientError` if it is unavailable."""
        with storage_errors("database"):
            await self.migrate()
            async with self._engine.begin() as connection:
                yield connection

    async def forget_deleted(self) -> None:
        """Empties SQLite's log, which has what was deleted until then; its pages are overwritten
        at once. Where others are reading or writing, the next call does it."""
        if not self._lite:
            return
        with storage_errors("database"):
            await self._merge_index()
            async with self._engine.connect() as connection:
                await connection.execution_options(bare=True)
                for pragma in ("busy_timeout=1000", "wal_checkpoint(TRUNCATE)", PATIENCE):
                    await connection.exec_driver_sql(f"PRAGMA {pragma}")

    async def _merge_index(self) -> None:
        """FTS5 has deleted words until its segments are merged."""
        async with self.write() as connection:
            stale = "UPDATE passages_stale SET stale = 0 WHERE stale = 1"
            if (await connection.exec_driver_sql(stale)).rowcount:
                merge = "INSERT INTO passages_index (passages_index) VALUES ('optimize')"
                await connection.exec_driver_sql(merge)

    async def migrate(self) -> None:
        """Bring the tables up to date, once; one process at a time."""
        async with self._migrating:
            if not self._migrated:
                async with self._alone(), self._engine.begin() as connection:
                    if not self._lite:
                        lock = sa.text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
                        await connection.execute(lock)
                    await connection.run_sync(_upgrade)
                self._migrated = True

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._engine.dispose()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        if not self._lite:
            yield
            return
        file = Path(str(self._url.database))
        await asyncio.to_thread(_make_private, file)
        # Not in a thread: who is cancelled while it opens a file could not close it.
        with _lock_file(file) as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            yield


def _make_private(file: Path) -> None:
    """SQLite's file and all beside it are their owner's only. SQLite gives its other files the mode
    of the first."""
    make_folder(file.parent)
    open(file, "ab", opener=owner_only).close()
    within = list(file.parent.iterdir())
    tighten(it for it in within if it.name.startswith(f"{file.stem}."))
    if all(it.name.startswith((f"{file.stem}.", *OURS)) for it in within):
        tighten([file.parent])


def _lock_file(file: Path) -> IO[str]:
    return open(file.with_suffix(".lock"), "a", opener=owner_only)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` sends BEGIN
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("bare"):
        connection.exec_driver_sql("BEGIN" if options.get("read") else "BEGIN IMMEDIATE")


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # takes 250 ms
    from alembic.config import Config as Alembic

    config = Alembic()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
