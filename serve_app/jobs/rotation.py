"""Wraps everything in the database with the newest key, so that older keys can be removed.

Jobs' keys are wrapped again; the recordings, which they encrypt, are not touched. Webhooks and
histories are encrypted again. It takes few rows at a time, and changes a row only if nobody else
has meanwhile, so servers may run. What was done stays done when it is stopped.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.jobs.database import Database
from serve_app.jobs.encryption import Damaged
from serve_app.jobs.keyring import HEADER_BYTES, MAGIC, KeyMissing, Keyring
from serve_app.jobs.private import Private, Row, delivery_path
from serve_app.jobs.tables import deliveries, histories, jobs

AT_ONCE = 100
"""Rows in one transaction: other writers wait for less than that takes."""

PLAIN = "not encrypted"

Rewrap = Callable[[Row], dict[str, Any]]


class Sealed(NamedTuple):
    """A table with something that a key of the operator encrypts."""

    name: str
    table: sa.Table
    column: sa.Column[bytes]
    order: sa.Column[Any]


SEALED = (
    Sealed("recordings", jobs, jobs.c.sealed_key, jobs.c.sequence),
    Sealed("webhooks", deliveries, deliveries.c.private, deliveries.c.id),
    Sealed("conversations", histories, histories.c.body, histories.c.id),
)


class Rotated(NamedTuple):
    """How a rotation ended."""

    changed: Counter[str]
    """Rows, by their kind."""
    missing: Counter[str]
    """Rows that no configured key opens, by the id of their key."""
    damaged: Counter[str]
    """Rows that were changed by somebody else, by their kind."""


async def key_counts(database: Database) -> dict[str, Counter[str]]:
    """For each kind of row, how many each key encrypted, by its id. Raises `ClientError`."""
    found = {}
    async with database.read() as connection:
        for it in SEALED:
            begin = sa.func.substr(it.column, 1, HEADER_BYTES).label("begin")
            counted = sa.select(begin, sa.func.count()).group_by(begin)
            counts: Counter[str] = Counter()
            for start, count in await connection.execute(counted):
                counts[_shown(start)] += count
            found[it.name] = counts
    return found


class Rotation:
    """`run` may be called again after any failure."""

    def __init__(self, database: Database, keys: Keyring) -> None:
        self._database = database
        self._keys = keys
        private = Private(keys, encrypt=True)
        self._rewraps: dict[str, Rewrap] = {
            "recordings": private.rewrapped,
            "webhooks": self._webhook,
            "conversations": self._history,
        }
        self._overtaken = 0
        """Rows that somebody else changed meanwhile; they are taken again."""

    async def waiting(self) -> int:
        """Rows that are to be changed."""
        async with self._database.read() as connection:
            total = 0
            for it in SEALED:
                old = sa.select(sa.func.count()).select_from(it.table).where(self._is_old(it))
                total += await connection.scalar(old) or 0
        return total

    async def run(self, on_progress: Callable[[int], None]) -> Rotated:
        """`on_progress` gets the number of rows after each batch. Raises `ClientError`."""
        changed: Counter[str] = Counter()
        while True:
            done = Rotated(changed, Counter(), Counter())
            self._overtaken = 0
            for kind in SEALED:
                await self._run_once(kind, done, on_progress)
            if not self._overtaken:
                return done

    async def _run_once(
        self, kind: Sealed, done: Rotated, on_progress: Callable[[int], None]
    ) -> None:
        after: Any = None
        while rows := await self._rows(kind, after):
            on_progress(await self._change(kind, rows, done))
            after = rows[-1][kind.order.name]

    async def _rows(self, kind: Sealed, after: Any) -> list[Row]:
        wanted = kind.table.select().where(self._is_old(kind))
        if after is not None:
            wanted = wanted.where(kind.order > after)
        async with self._database.read() as connection:
            rows = await connection.execute(wanted.order_by(kind.order).limit(AT_ONCE))
            return list(rows.mappings().all())

    async def _change(self, kind: Sealed, rows: list[Row], done: Rotated) -> int:
        changes = [(row, values) for row in rows if (values := self._rewrapped(kind, row, done))]
        async with self._database.write() as connection:
            for row, values in changes:
                same = [kind.table.c[name] == row[name] for name in values if row[name] is not None]
                here = kind.order == row[kind.order.name]
                change = kind.table.update().where(here, *same).values(values)
                count = (await connection.execute(change)).rowcount
                done.changed[kind.name] += count
                self._overtaken += 1 - count
        return len(rows)

    def _rewrapped(self, kind: Sealed, row: Row, done: Rotated) -> dict[str, Any] | None:
        try:
            return self._rewraps[kind.name](row)
        except KeyMissing as missing:
            done.missing[missing.id] += 1
        except Damaged:
            done.damaged[kind.name] += 1
        return None

    def _is_old(self, kind: Sealed) -> sa.ColumnElement[bool]:
        """Encrypted, but not with the newest key, or not all of it."""
        begin = sa.func.substr(kind.column, 1, HEADER_BYTES)
        encrypted = sa.func.substr(kind.column, 1, len(MAGIC)) == MAGIC
        old = begin != self._keys.prefix
        return encrypted & (old | jobs.c.private.is_(None) if kind.table is jobs else old)

    def _webhook(self, row: Row) -> dict[str, Any]:
        return {"private": self._keys.rewrap(row["private"], delivery_path(row))}

    def _history(self, row: Row) -> dict[str, Any]:
        return {"body": self._keys.rewrap(row["body"], f"{row['tenant']}/{row['id']}")}


def _shown(begin: bytes | None) -> str:
    """The id of a key, from how something begins that it has encrypted."""
    sealed = begin is not None and bytes(begin).startswith(MAGIC)
    return bytes(begin)[len(MAGIC) :].hex() if begin and sealed else PLAIN
