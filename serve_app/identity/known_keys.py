"""The keys of the database, as this ingress replica knows them: read again when one has changed.

While the database is away, what was read last goes on; only time passes, and keys expire.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from hmac import compare_digest

import anyio

from serve_app.errors import ClientError
from serve_app.identity.api_key import ID_CHARS, Peppers, ShownKey, parsed_key
from serve_app.identity.api_keys import USED_EVERY_S, ApiKey, ApiKeys, Version, version_of
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.principal import Ended, Principal
from serve_app.jobs.database import Database, away

log = logging.getLogger("voxray.identity")

REFRESH_S = 1.0
SOONEST_S = 0.25
"""Between two readings, however many unknown keys are shown."""

WAIT_S = 2.0
"""How long somebody with an unknown key waits for the next reading."""


class KnownKeys:
    """Up to date while `run` runs."""

    def __init__(self, database: Database, peppers: Peppers) -> None:
        self._table = ApiKeys(database)
        self._peppers = peppers
        self._keys: Mapping[str, ApiKey] = {}
        self._valid: Mapping[str, Principal] = {}
        self._version: Version | None = None
        """None until they have been read."""
        self._read_at = time.monotonic()
        self._next_expiry = 0.0
        self._used: dict[str, float] = {}
        self._nobody = _nobody(peppers)
        self._wanted = asyncio.Event()
        self._next_reading = asyncio.Event()
        """Set when the next reading has ended, and replaced when one begins."""
        self._away = False

    def caller(self, credential: str) -> Principal:
        """Raises `LoginRefused`, and `ClientError` `storage_unavailable`. An unknown key takes as
        long as a wrong one."""
        shown = parsed_key(credential)
        if shown is None:
            raise LoginRefused(RefusalReason.MALFORMED)
        key = self._keys.get(shown.id, self._nobody)
        right = compare_digest(self._peppers.digest(key.pepper, shown), key.digest)
        if key is self._nobody:
            raise self._unknown()
        at = time.time()
        if refusal := self._refusal(key, right, at):
            raise LoginRefused(refusal, key.id)
        self._used[key.id] = at
        return self._valid.get(key.id) or key.principal

    def still_valid(self, id_: str) -> bool:
        """Raises `ClientError` while nobody knows."""
        if self._version is None:
            raise away("list of keys")
        return id_ in self._valid and self._keys[id_].state(time.time()) == "valid"

    @property
    def age_s(self) -> float:
        """Since they were last read, or since the start."""
        return time.monotonic() - self._read_at

    async def refreshed(self) -> None:
        """Returns after the next reading, or after `WAIT_S`."""
        self._wanted.set()
        with anyio.move_on_after(WAIT_S):
            await self._next_reading.wait()

    async def run(self, ended: Ended) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_reading, ended)
            tasks.start_soon(self._keep_telling_use)

    def _refusal(self, key: ApiKey, right: bool, at: float) -> RefusalReason | None:
        if key.pepper not in self._peppers:
            return RefusalReason.PEPPER
        if not right:
            return RefusalReason.WRONG
        state = key.state(at)
        return None if state == "valid" else RefusalReason(state)

    def _unknown(self) -> ClientError:
        if self._version is None:
            return away("list of keys")
        return LoginRefused(RefusalReason.UNKNOWN)

    async def _keep_reading(self, ended: Ended) -> None:
        while True:
            self._wanted.clear()
            done, self._next_reading = self._next_reading, asyncio.Event()
            await self._read_or_go_on()
            if gone := self._end(time.time()):
                ended(gone)
            done.set()
            await asyncio.sleep(SOONEST_S)
            with anyio.move_on_after(REFRESH_S - SOONEST_S):
                await self._wanted.wait()

    async def _read_or_go_on(self) -> None:
        try:
            await self._read()
        except Exception as error:  # live speech does not end with the database
            if not self._away:
                log.warning("keys_unavailable", extra={"cause": type(error).__name__})
            self._away = True
        else:
            self._away = False
            self._read_at = time.monotonic()

    async def _read(self) -> None:
        if await self._table.version() == self._version:
            return
        keys = {key.id: key async for page in self._table.pages() for key in page}
        if strange := {key.pepper for key in keys.values() if key.pepper not in self._peppers}:
            log.warning("pepper_missing", extra={"peppers": ", ".join(sorted(strange)[:5])})
        self._keys, self._next_expiry = keys, 0.0
        self._version = version_of(keys.values())  # of what was read: it may change meanwhile

    def _end(self, at: float) -> set[str]:
        """The ids of keys that are not valid any more, or not in the same way."""
        if at < self._next_expiry:
            return set()
        before = self._valid
        valid = [key for key in self._keys.values() if key.state(at) == "valid"]
        self._valid = {key.id: key.principal for key in valid}
        self._next_expiry = min(
            (key.expires or float("inf") for key in valid), default=float("inf")
        )
        return {id_ for id_, was in before.items() if self._valid.get(id_) != was}

    async def _keep_telling_use(self) -> None:
        while True:
            await asyncio.sleep(USED_EVERY_S)
            used, self._used = self._used, {}
            try:
                if used:
                    await self._table.used(used)
            except Exception:  # they are told the next time
                self._used = {**used, **self._used}


def _nobody(peppers: Peppers) -> ApiKey:
    """Stands for keys that there are not."""
    nothing = ShownKey("0" * ID_CHARS, "")
    digest = peppers.digest(peppers.newest, nothing)
    return ApiKey("", "", "", frozenset(), digest, peppers.newest, 0.0, None, None, None)
