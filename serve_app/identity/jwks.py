"""Reads an identity provider's key set (JWKS), from where the configuration says and from nowhere
else: a file, or a URL. No redirect is followed, no proxy of the environment is used.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Protocol

import httpcore2 as httpcore

from serve_app.identity.token_keys import JwksUnusable

MAX_BYTES = 1_000_000
TIMEOUT_S = 10.0

HEADERS: dict[str | bytes, str | bytes] = {
    "accept": "application/jwk-set+json, application/json",
    "accept-encoding": "identity",
    "user-agent": "voxray",
}


class JwksSource(Protocol):
    every_s: float
    """How often to look whether it has changed."""

    async def read(self) -> bytes:
        """Raises `JwksUnusable`."""


def jwks_source(place: str) -> JwksSource:
    """Of `auth.jwt.jwks`."""
    return JwksUrl(place) if "://" in place else JwksFile(Path(place).expanduser())


class JwksFile:
    every_s = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> bytes:
        return await asyncio.to_thread(self.content)

    def content(self) -> bytes:
        """Blocks. Raises `JwksUnusable`."""
        try:
            with self._path.open("rb") as file:
                return _bounded(file.read(MAX_BYTES + 1))
        except OSError as error:
            raise JwksUnusable(f"it cannot be read: {type(error).__name__}") from None


class JwksUrl:
    every_s = 300.0

    def __init__(self, url: str) -> None:
        self._url = url
        self._tls = ssl.create_default_context()  # which reads files, so not later

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._fetched()
        except (TimeoutError, httpcore.TimeoutException):
            raise JwksUnusable("no answer in time") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise JwksUnusable(type(error).__name__) from None

    async def _fetched(self) -> bytes:
        async with (
            httpcore.AsyncConnectionPool(self._tls) as pool,
            pool.stream("GET", self._url, headers=HEADERS) as answer,
        ):
            if answer.status != 200:
                raise JwksUnusable(f"HTTP {answer.status}")
            body = b""
            async for part in answer.aiter_stream():
                body = _bounded(body + part)
            return body


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_BYTES:
        raise JwksUnusable(f"it is larger than {MAX_BYTES} bytes")
    return body
