"""Objects in S3, GCS or Azure, by URL (obstore, the extra `s3`)."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from serve_app.extras import S3, module_of

TIMEOUTS = {"timeout": "10s", "connect_timeout": "3s"}
RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


class RemoteStore:
    """Every method raises `OSError`; `FileNotFoundError` if there is no such object."""

    def __init__(self, url: str) -> None:
        """Raises `MissingExtra` without obstore."""
        self._library: Any = module_of(S3)
        from obstore.store import from_url

        plain = urlsplit(url).scheme in ("s3", "s3a") and os.environ.get("AWS_ENDPOINT_URL", "")
        client: Any = dict(TIMEOUTS)
        if str(plain).startswith("http://"):
            client["allow_http"] = True
        retries: Any = RETRIES
        self._store = from_url(url, client_options=client, retry_config=retries)

    def free_bytes(self) -> None:
        """Not known."""

    async def put(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        with self._errors():
            await self._library.put_async(self._store, name, pieces)

    async def size(self, name: str) -> int:
        with self._errors():
            return int((await self._library.head_async(self._store, name))["size"])

    async def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end`."""
        with self._errors():
            return bytes(
                await self._library.get_range_async(self._store, name, start=start, end=end)
            )

    async def names(self, prefix: str) -> list[tuple[str, float]]:
        """Objects under a path, and when they were written, in seconds since 1970."""
        with self._errors():
            return [
                (meta["path"], meta["last_modified"].timestamp())
                async for page in self._library.list(self._store, prefix)
                for meta in page
            ]

    async def delete(self, name: str) -> None:
        with self._errors():
            await self._library.delete_async(self._store, name)

    async def forget_unfinished(self, before: float) -> None:
        """Nothing to do: the bucket's lifecycle rules end multipart uploads."""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except self._library.exceptions.BaseError as error:
            raise OSError(str(error)) from error
