"""The histories of conversations that may be continued later: a row each, written after each turn.

Nobody waits for the database. Of a conversation whose turns end faster than they are written, only
the latest is. If a write fails, a warning and a metric say so, and the next turn tries again.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import anyio
import orjson
import sqlalchemy as sa

from serve_app.config import StorageConfig
from serve_app.config.resume import ResumeConfig
from serve_app.conversation.history import Item
from serve_app.errors import ClientError
from serve_app.jobs.database import Database, now
from serve_app.jobs.encryption import Damaged
from serve_app.jobs.keyring import MAGIC, KeyMissing
from serve_app.jobs.retention import Kept, is_over
from serve_app.jobs.storage_keys import keys_of
from serve_app.jobs.tables import histories
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import HISTORIES_NOT_WRITTEN

log = logging.getLogger("voxray.conversation")

MAX_BYTES = 1 << 20
"""Of one history; beyond it the oldest items are left out."""

MOST_WAITING_BYTES = 64 << 20
"""Of all histories that are not written yet; beyond it turns are not kept."""

WRITING_S = 1.0
"""How long a client that comes back waits for its last turn to be written."""


class Owner(NamedTuple):
    """Whose history it is."""

    tenant: str
    id: str


class _Turn(NamedTuple):
    epoch: int
    body: bytes


class Histories:
    """Writes while `run` runs."""

    def __init__(
        self, database: Database, storage: StorageConfig, config: ResumeConfig, metrics: Metrics
    ) -> None:
        """Raises `ValueError` for keys that cannot be used."""
        self._database = database
        self._keys = keys_of(storage)
        self._encrypt = storage.encrypt
        self._config = config
        self._metrics = metrics
        self._waiting: dict[Owner, _Turn] = {}
        self._writing: dict[Owner, _Turn] = {}
        self._waiting_bytes = 0
        """Of both."""
        self._changed = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def keep(self, owner: Owner, epoch: int, items: Sequence[Item]) -> None:
        """The history after a turn. `epoch`: connections before this one; the newest one wins."""
        turn = _Turn(epoch, packed(items[-self._config.history_items :]))
        before = self._waiting.get(owner, _Turn(0, b""))
        if epoch < before.epoch:
            return None
        growth = len(turn.body) - len(before.body)
        if self._waiting_bytes + growth > MOST_WAITING_BYTES:
            return self._metrics.count(HISTORIES_NOT_WRITTEN)
        self._waiting[owner] = turn
        self._waiting_bytes += growth
        self._written.clear()
        self._changed.set()

    async def recall(self, owner: Owner) -> list[Item]:
        """Raises `ClientError` if it cannot be read, or is not there any more."""
        await self.stored(WRITING_S)
        if turn := self._waiting.get(owner) or self._writing.get(owner):
            return _items(turn.body)
        known = (histories.c.id == owner.id) & (histories.c.tenant == owner.tenant)
        async with self._database.read() as connection:
            row = await connection.execute(sa.select(histories.c.body).where(known))
            found = row.scalar_one_or_none()
        if found is None:
            raise ClientError("resume_refused", "the conversation is no longer stored")
        return _items(self._opened(owner, found))

    async def stored(self, within_s: float) -> None:
        """Returns when everything is written, or after `within_s`."""
        with anyio.move_on_after(within_s):
            await self._written.wait()

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._writing, self._waiting = self._waiting, {}
            while self._writing:
                owner, turn = next(iter(self._writing.items()))
                await self._write_or_warn(owner, turn)
                del self._writing[owner]
                self._waiting_bytes -= len(turn.body)
            if not self._waiting:
                self._written.set()

    async def _write_or_warn(self, owner: Owner, turn: _Turn) -> None:
        try:
            await self._write(owner, turn)
        except Exception as error:  # nothing of it may end the conversations
            self._metrics.count(HISTORIES_NOT_WRITTEN)
            fields = {"tenant": owner.tenant, "cause": type(error).__name__}
            log.warning("history_not_written", extra=fields)

    async def _write(self, owner: Owner, turn: _Turn) -> None:
        known = (histories.c.id == owner.id) & (histories.c.tenant == owner.tenant)
        seals = self._keys if self._encrypt else None
        body = seals.seal(turn.body, _path(owner)) if seals else turn.body
        values: dict[str, Any] = {"body": body, "epoch": turn.epoch, "updated": now()}
        async with self._database.write() as connection:
            there = await connection.execute(sa.select(histories.c.epoch).where(known))
            epoch = there.scalar_one_or_none()
            if epoch is None:
                values |= owner._asdict()
                await connection.execute(histories.insert().values(**values))
            elif epoch <= turn.epoch:
                await connection.execute(histories.update().where(known).values(**values))

    def _opened(self, owner: Owner, body: bytes) -> bytes:
        if not body.startswith(MAGIC):
            return body
        try:
            if self._keys:
                return self._keys.open(body, _path(owner))
        except KeyMissing as missing:
            raise ClientError("storage_key_missing", str(missing)) from missing
        except Damaged as damaged:
            raise ClientError("storage_damaged", "the stored history is damaged") from damaged
        raise ClientError("storage_key_missing", "the stored history is encrypted")


async def forget_histories(database: Database, kept: Kept) -> None:
    """Delete those without a turn for longer than they are kept. Raises `ClientError`."""
    async with database.write() as connection:
        old = is_over(histories.c.tenant, histories.c.updated, kept)
        await connection.execute(histories.delete().where(old))


def packed(items: Sequence[Item]) -> bytes:
    """As JSON; the newest items that fit."""
    pieces = [orjson.dumps(asdict(item)) for item in items]
    size = 2
    for at in range(len(pieces) - 1, -1, -1):
        size += len(pieces[at]) + 1
        if size > MAX_BYTES:
            pieces = pieces[at + 1 :]
            break
    return b"[" + b",".join(pieces) + b"]"


def _items(body: bytes) -> list[Item]:
    return [Item(**fields) for fields in orjson.loads(body)]


def _path(owner: Owner) -> str:
    return f"{owner.tenant}/{owner.id}"
