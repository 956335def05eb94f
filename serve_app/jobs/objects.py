"""Audio and results in an object store: a local folder, or S3, GCS, Azure by URL; encrypted or not.

An object appears whole or not at all. Objects of a job are under `tenant/job/`.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from serve_app.config import StorageConfig
from serve_app.errors import ClientError
from serve_app.jobs import encryption
from serve_app.jobs.database import FULL, away, full
from serve_app.jobs.encryption import CHUNK_BYTES, HEADER_BYTES, Damaged, Encryption, Seal
from serve_app.jobs.folder_store import FolderStore
from serve_app.jobs.keyring import KeyMissing, id_of
from serve_app.jobs.remote_store import RemoteStore
from serve_app.jobs.storage_keys import keys_of

PIECE_BYTES = 1 << 20
SPARE_BYTES = 64 << 20
"""Left free on a local disk, because results are written there, too."""

OF_A_JOB = re.compile(r"[^/]+/(?P<job>job_[0-9a-f]{32})(?=/)")
"""Names of objects of jobs; nothing else in the store is deleted."""

Store = FolderStore | RemoteStore


def damaged() -> ClientError:
    return ClientError("storage_damaged", "the stored data is damaged")


def failure(error: Exception) -> ClientError:
    """A store's error, for a client."""
    message = str(error).lower()
    return full() if any(text in message for text in FULL) else away("object store")


class HasObjects(Protocol):
    """Whose objects they are: a job, or an upload."""

    @property
    def sealed_key(self) -> bytes | None: ...

    def path(self, name: str) -> str:
        """Of one of its objects: `tenant/id/name`."""


class Stored:
    """An object that can be read at any position; a `decoding.Source`."""

    def __init__(self, store: Store, name: str, size: int, seal: Seal | None) -> None:
        self._store = store
        self._name = name
        self._seal = seal
        self.size = encryption.plain_size(size) if seal else size

    async def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, fewer at the end of the object. Raises `ClientError`."""
        end = min(end, self.size)
        if start >= end:
            return b""
        if not self._seal:
            return await _range(self._store, self._name, start, end)
        return await self._open(self._seal, start, end)

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The same, in pieces of 1 MiB."""
        for at in range(start, end, PIECE_BYTES):
            yield await self.read(at, min(end, at + PIECE_BYTES))

    async def _open(self, seal: Seal, start: int, end: int) -> bytes:
        chunks = encryption.chunks_of(start, end, self.size)
        last = encryption.last_chunk(self.size)
        begin = encryption.offset_of(chunks[0])
        until = encryption.offset_of(chunks[-1] + 1)
        sealed = await _range(self._store, self._name, begin, until)
        plain = bytearray()
        try:
            for index, number in enumerate(chunks):
                at = index * encryption.SEALED_CHUNK_BYTES
                chunk = sealed[at : at + encryption.SEALED_CHUNK_BYTES]
                plain += seal.open(chunk, number, number == last)
        except Damaged as error:
            raise damaged() from error
        first = chunks[0] * CHUNK_BYTES
        return bytes(plain[start - first : end - first])


class Objects:
    """All objects. Every method raises `ClientError` if the store is unavailable or full."""

    def __init__(self, config: StorageConfig) -> None:
        self._store = store_of(config.objects_url)
        self._keys = keys_of(config)
        self._encrypt = config.encrypt

    def new_key(self, path: str) -> bytes | None:
        """A new job's key, wrapped; None without encryption. `path` is `tenant/job`."""
        if not (self._encrypt and self._keys):
            return None
        return self._keys.seal(encryption.new_key(), path)

    @property
    def encrypts(self) -> bool:
        return self._encrypt

    def check_room(self, wanted: int) -> None:
        """Raises `ClientError` if a local disk has no room for `wanted` bytes."""
        free = self._store.free_bytes()
        if free is not None and free < wanted + SPARE_BYTES:
            raise full()

    async def put(self, job: HasObjects, name: str, body: bytes) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield body

        await self.put_stream(job.path(name), job.sealed_key, pieces())

    async def put_stream(
        self, path: str, sealed_key: bytes | None, pieces: AsyncIterator[bytes]
    ) -> None:
        """Raises what `pieces` raises, too; then nothing is stored."""
        raised: list[BaseException] = []

        async def watched() -> AsyncIterator[bytes]:
            try:
                async for piece in self._sealed(path, sealed_key, pieces):
                    yield piece
            except BaseException as error:
                raised.append(error)
                raise

        try:
            await self._store.put(path, watched())
        except OSError as error:
            raise raised[0] if raised else failure(error) from error

    async def open(self, job: HasObjects, name: str) -> Stored | None:
        """None if there is no such object."""
        path = job.path(name)
        try:
            size = await self._store.size(path)
            seal = await self._seal_of(job, path) if job.sealed_key else None
            return Stored(self._store, path, size, seal)
        except FileNotFoundError:
            return None
        except Damaged as error:
            raise damaged() from error
        except OSError as error:
            raise failure(error) from error

    async def read(self, job: HasObjects, name: str) -> bytes | None:
        """A small object, whole."""
        stored = await self.open(job, name)
        return await stored.read(0, stored.size) if stored else None

    async def names(self, prefix: str) -> list[tuple[str, float]]:
        """Objects under a prefix, and when they were written, in seconds since 1970."""
        try:
            return await self._store.names(prefix)
        except OSError as error:
            raise failure(error) from error

    async def forget_unfinished(self, before: float) -> None:
        """Delete the unfinished uploads to a local folder that killed processes left before that
        time, in seconds since 1970."""
        await self._store.forget_unfinished(before)

    async def delete(self, prefix: str) -> int:
        """Everything under a prefix; the number of objects."""
        names = await self.names(prefix)
        for name, _ in names:
            try:
                await self._store.delete(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise failure(error) from error
        return len(names)

    async def _sealed(
        self, path: str, sealed_key: bytes | None, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        if not sealed_key:
            async for piece in pieces:
                yield piece
            return
        seal, header = Seal.new(self._job_key(path, sealed_key), path)
        yield header
        encryption_ = Encryption(seal)
        async for piece in pieces:
            for chunk in encryption_.push(piece):
                yield chunk
        yield encryption_.finish()

    async def _seal_of(self, job: HasObjects, path: str) -> Seal:
        assert job.sealed_key
        header = await _range(self._store, path, 0, HEADER_BYTES)
        return Seal.of(self._job_key(path, job.sealed_key), path, header)

    def _job_key(self, path: str, sealed_key: bytes) -> bytes:
        try:
            if not self._keys:
                raise KeyMissing(id_of(sealed_key))
            return self._keys.open(sealed_key, "/".join(path.split("/")[:2]))
        except KeyMissing as error:
            raise ClientError(
                "storage_key_missing", f"the job cannot be decrypted: {error}"
            ) from error
        except Damaged as error:
            raise damaged() from error


async def _range(store: Store, name: str, start: int, end: int) -> bytes:
    try:
        return await store.read(name, start, end)
    except OSError as error:
        raise failure(error) from error


def store_of(url: str) -> Store:
    """Raises `MissingExtra` if the URL needs a package that is not installed."""
    return RemoteStore(url) if "://" in url else FolderStore(Path(url))
