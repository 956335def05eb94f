"""Writes what the meter counts into the database, and reads what all processes have written.

Nobody waits for it. While the database is away the sums stay in memory, and are written later.
"""

import asyncio
import itertools
import logging
import time
import uuid
from typing import Any

import anyio

from serve_app.jobs.database import Database
from serve_app.usage import table
from serve_app.usage.meter import Entry, Meter
from serve_app.usage.report import UsageAsked, report

log = logging.getLogger("voxray.usage")

WRITE_S = 15.0
"""After a crash, what was used since the last time is not counted."""

RETRY_S = 0.2
ROWS_AT_ONCE = 500


class Ledger:
    """Of one process. Writes while `run` runs."""

    def __init__(self, meter: Meter, database: Database) -> None:
        self._meter = meter
        self._database = database
        self._source = uuid.uuid4().hex
        self._writing = asyncio.Lock()
        self._all_written = time.monotonic()

    @property
    def unwritten_s(self) -> float:
        """Seconds in which something that is used has not been written."""
        return time.monotonic() - self._all_written if not self._meter.is_written else 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            await self._write_or_warn()

    async def _write_or_warn(self) -> None:
        try:
            await self.write()
        except Exception as error:  # of any kind: what is used is counted on
            log.warning("usage_not_written", extra={"cause": type(error).__name__})

    async def write(self) -> None:
        """Write all that is counted by now. Raises `ClientError`."""
        async with self._writing:
            began = time.monotonic()
            unwritten = iter(self._meter.unwritten().items())
            while some := dict(itertools.islice(unwritten, ROWS_AT_ONCE)):
                await self._write(some)
            self._all_written = began

    async def _write(self, some: dict[Entry, float]) -> None:
        async with self._database.write() as connection:
            await table.overwrite(connection, self._source, some)
        self._meter.wrote(some)

    async def stored(self, within_s: float) -> None:
        """Returns when all is written, or after `within_s`."""
        with anyio.move_on_after(within_s):
            while not self._meter.is_written:
                await self._write_or_warn()
                await asyncio.sleep(RETRY_S)

    async def report(self, asked: UsageAsked) -> list[dict[str, Any]]:
        """All of this process, and what others have written. Raises `ClientError`."""
        await self.write()
        async with self._database.read() as connection:
            return await report(connection, asked)

    async def of_today(self, tenant: str) -> table.Sums:
        """What a tenant has used today, by key and kind: all of this process, and what others have
        written. Raises `ClientError`."""
        day = self._meter.day
        async with self._database.read() as connection:
            sums = await table.of_day(connection, tenant, day, self._source)
        for of, amount in self._meter.of_today(tenant).items():
            sums[of] = sums.get(of, 0.0) + amount
        return sums
