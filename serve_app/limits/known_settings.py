"""Keeps the settings of tenants, in one process, as the database has them.

While the database is away, what was read last goes on; before the first reading, the configuration.
"""

import asyncio
import logging

from serve_app.jobs.database import Database
from serve_app.limits.settings import TenantSettings
from serve_app.limits.tenant_table import TenantTable, Version

log = logging.getLogger("voxray.limits")

REFRESH_S = 2.0


class KnownSettings:
    """Up to date while `run` runs."""

    def __init__(self, database: Database, settings: TenantSettings) -> None:
        self._table = TenantTable(database)
        self._settings = settings
        self._version: Version | None = None
        self._away = False

    async def run(self) -> None:
        while True:
            await self._read_or_go_on()
            await asyncio.sleep(REFRESH_S)

    async def _read_or_go_on(self) -> None:
        try:
            await self._read()
        except Exception as error:  # live speech does not end with the database
            if not self._away:
                log.warning("tenants_unavailable", extra={"cause": type(error).__name__})
            self._away = True
        else:
            self._away = False

    async def _read(self) -> None:
        if await self._table.version() != self._version:
            found = await self._table.read()
            self._settings.override(found.rows)
            self._version = found.version
