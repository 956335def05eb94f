"""The identity provider's public keys, as this ingress replica knows them.

Read again from time to time, and soon when a token names a key that is not known. While they cannot
be read, the last ones stay.
"""

import asyncio
import logging
import time

import anyio
from jwt import PyJWK

from serve_app.backoff import backoff_s
from serve_app.config.auth import JwtConfig
from serve_app.errors import ClientError
from serve_app.identity.jwks import JwksFile, jwks_source
from serve_app.identity.login_refused import LoginRefused, RefusalReason
from serve_app.identity.token_keys import JwksUnusable, TokenKeys, token_keys

log = logging.getLogger("voxray.identity")

UNKNOWN_S = 60.0
"""Between two readings because of unknown keys, however many tokens name one."""

RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
WAIT_S = 2.0
"""How long somebody with an unknown key waits for the next reading."""


class ProviderKeys:
    """Up to date while `run` runs."""

    def __init__(self, config: JwtConfig) -> None:
        """Raises `ValueError` for a file that cannot be used."""
        self._algorithms = config.algorithms
        self._source = jwks_source(config.jwks)
        self._body = b""
        self.current: TokenKeys | None = None
        """None until they have been read. Another object when they have changed."""
        self._wanted = asyncio.Event()
        self._next_reading = asyncio.Event()
        """Set when the next reading has ended, and replaced when one begins."""
        self._unknown_at = -UNKNOWN_S
        self._failures = 0
        if isinstance(self._source, JwksFile):
            self._body, self.current = first_keys(self._source, config)

    def find(self, kid: str | None, algorithm: str) -> PyJWK:
        """Never waits. Raises `LoginRefused` for an unknown key, and `ClientError`
        `auth_unavailable` until they have been read."""
        if self.current is None:
            reason = "the identity provider's keys have not been read yet; retry later"
            raise ClientError("auth_unavailable", reason, round(WAIT_S))
        if key := self.current.find(kid, algorithm):
            return key
        self._look_for_it()
        raise LoginRefused(RefusalReason.UNKNOWN)

    async def refreshed(self) -> None:
        """Returns after the reading that an unknown key has caused, or after `WAIT_S`."""
        if self._wanted.is_set():
            with anyio.move_on_after(WAIT_S):
                await self._next_reading.wait()

    async def run(self) -> None:
        while True:
            done, self._next_reading = self._next_reading, asyncio.Event()
            await self._read_or_go_on()
            self._wanted.clear()
            done.set()
            with anyio.move_on_after(self._pause_s()):
                await self._wanted.wait()

    def _look_for_it(self) -> None:
        now = time.monotonic()
        if now - self._unknown_at >= UNKNOWN_S:
            self._unknown_at = now
            self._wanted.set()

    def _pause_s(self) -> float:
        if not self._failures:
            return self._source.every_s
        return backoff_s(RETRY_S, self._failures, LONGEST_RETRY_S)

    async def _read_or_go_on(self) -> None:
        try:
            await self._read()
        except JwksUnusable as error:
            self._failed(str(error))
        except Exception as error:  # the server does not end with the identity provider
            self._failed(type(error).__name__)
        else:
            self._failures = 0

    def _failed(self, cause: str) -> None:
        if not self._failures:
            log.warning("token_keys_unavailable", extra={"cause": cause})
        self._failures += 1

    async def _read(self) -> None:
        body = await self._source.read()
        if body == self._body:
            return
        keys = await asyncio.to_thread(token_keys, body, self._algorithms)
        self._body, self.current = body, keys
        log.info("token_keys_read", extra={"keys": len(keys), "skipped": keys.skipped})


def first_keys(file: JwksFile, config: JwtConfig) -> tuple[bytes, TokenKeys]:
    """Of a file, before anything starts. Blocks. Raises `ValueError`."""
    try:
        body = file.content()
        return body, token_keys(body, config.algorithms)
    except JwksUnusable as error:
        raise ValueError(f"auth.jwt.jwks: {config.jwks}: {error}") from None
