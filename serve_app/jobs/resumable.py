"""Uploads that arrive in several requests, at any server of the cluster.

Each request's bytes are an object, and a row says how far the upload is. When it is whole it
becomes a job, as any other.
"""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database, now
from serve_app.jobs.objects import Objects
from serve_app.jobs.tables import uploads

LIFETIME_S = 86_400.0
"""After which an upload that is not whole is given up; a whole one may be asked about as long."""

MOST_OPEN = 100
"""Of a tenant."""

MOST_PARTS = 10_000
METADATA = "metadata"


class PartialUpload(NamedTuple):
    """An upload. Times are seconds since 1970."""

    id: str
    tenant: str
    key: str
    size: int
    received: int
    parts: tuple[str, ...]
    """The names of its objects."""
    sealed_key: bytes | None
    expires: float
    job_id: str | None

    def path(self, name: str) -> str:
        return f"{self.tenant}/{self.id}/{name}"

    @property
    def is_whole(self) -> bool:
        return self.received == self.size


class ResumableUploads:
    """Every method raises `ClientError`."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects

    async def create(self, owner: Principal, size: int, fields: Mapping[str, str]) -> PartialUpload:
        id_ = f"upload_{uuid.uuid4().hex}"
        sealed = self._objects.new_key(f"{owner.tenant}/{id_}")
        row = {"id": id_, "tenant": owner.tenant, "key": owner.key, "size": size}
        row |= {"received": 0, "parts": "[]", "sealed_key": sealed}
        times = {"created": now(), "expires": now() + LIFETIME_S}
        unfinished = sa.select(sa.func.count()).select_from(uploads)
        mine = (uploads.c.tenant == owner.tenant) & uploads.c.job_id.is_(None)
        async with self._database.write() as connection:
            if (await connection.scalar(unfinished.where(mine)) or 0) >= MOST_OPEN:
                reason = f"there are {MOST_OPEN} unfinished uploads already: finish or delete some"
                raise ClientError("too_many_uploads", reason)
            added = uploads.insert().values(**row, **times).returning(*_COLUMNS)
            made = _upload((await connection.execute(added)).mappings().one())
        await self._objects.put(made, METADATA, json.dumps(dict(fields)).encode())
        return made

    async def get(self, tenant: str, id_: str) -> PartialUpload:
        """Raises `ClientError` `upload_not_found`, also for another tenant's, and one that is
        over."""
        known = (uploads.c.tenant == tenant) & (uploads.c.id == id_) & (uploads.c.expires > now())
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(*_COLUMNS).where(known))).mappings().first()
        if row is None:
            raise ClientError("upload_not_found", "there is no such upload (any more)")
        return _upload(row)

    async def fields(self, upload: PartialUpload) -> dict[str, str]:
        """What was said of the recording when the upload began."""
        body = await self._objects.read(upload, METADATA)
        if body is None:
            raise ClientError("storage_damaged", "the upload's options are missing")
        fields: dict[str, str] = json.loads(body)
        return fields

    async def append(self, upload: PartialUpload, pieces: AsyncIterator[bytes]) -> PartialUpload:
        """Stores the pieces as the next part. Raises `ClientError` `upload_offset_conflict` if
        another request was faster; and `upload_too_large` for more than was announced."""
        if len(upload.parts) >= MOST_PARTS:
            reason = f"an upload has at most {MOST_PARTS} parts: send larger ones"
            raise ClientError("too_many_uploads", reason)
        folder = f"parts/{upload.received:015}-{uuid.uuid4().hex[:8]}"
        name = f"{folder}/bytes"  # what is deleted is a folder
        counted = _Counted(pieces, upload.size - upload.received)
        await self._objects.put_stream(upload.path(name), upload.sealed_key, aiter(counted))
        grown = upload._replace(
            received=upload.received + counted.size, parts=(*upload.parts, name)
        )
        if counted.size and await self._advanced(upload, grown):
            return grown
        await self._objects.delete(upload.path(folder))
        if counted.size:
            raise offset_conflict()
        return upload

    async def _advanced(self, before: PartialUpload, after: PartialUpload) -> bool:
        """False if another request was faster."""
        same = (uploads.c.id == before.id) & (uploads.c.received == before.received)
        values: dict[str, Any] = {"received": after.received, "parts": json.dumps(after.parts)}
        async with self._database.write() as connection:
            grown = await connection.execute(uploads.update().where(same).values(**values))
        return bool(grown.rowcount)

    async def content(self, upload: PartialUpload) -> AsyncIterator[bytes]:
        """The whole recording, part by part."""
        for name in upload.parts:
            stored = await self._objects.open(upload, name)
            if stored is None:
                raise ClientError("storage_damaged", "a part of the upload is missing")
            async for piece in stored.pieces(0, stored.size):
                yield piece

    async def become(self, upload: PartialUpload, job_id: str) -> None:
        """It is a job now: its parts are not needed any more."""
        async with self._database.write() as connection:
            mine = uploads.update().where(uploads.c.id == upload.id)
            await connection.execute(mine.values(job_id=job_id, parts="[]"))
        await self._objects.delete(upload.path("parts"))

    async def delete(self, upload: PartialUpload) -> None:
        await self._objects.delete(f"{upload.tenant}/{upload.id}")
        async with self._database.write() as connection:
            await connection.execute(uploads.delete().where(uploads.c.id == upload.id))

    async def forget(self) -> None:
        """Those that are over."""
        over = sa.select(*_COLUMNS).where(uploads.c.expires <= now()).limit(100)
        await self._delete_all(over)

    async def delete_of(self, tenant: str, before: float) -> None:
        """All of a tenant that began until that time, in seconds since 1970."""
        mine = (uploads.c.tenant == tenant) & (uploads.c.created <= before)
        await self._delete_all(sa.select(*_COLUMNS).where(mine))

    async def _delete_all(self, which: Any) -> None:
        async with self._database.read() as connection:
            rows = (await connection.execute(which)).mappings().all()
        for row in rows:
            await self.delete(_upload(row))


class _Counted:
    """Pieces, with their size. Raises `ClientError` beyond `most` bytes."""

    def __init__(self, pieces: AsyncIterator[bytes], most: int) -> None:
        self._pieces = pieces
        self._most = most
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            self.size += len(piece)
            if self.size > self._most:
                raise ClientError("upload_too_large", "this is more than `Upload-Length` announced")
            yield piece


def offset_conflict() -> ClientError:
    reason = "`Upload-Offset` is not how far the upload is: ask with HEAD, and go on from there"
    return ClientError("upload_offset_conflict", reason)


_COLUMNS = [uploads.c[name] for name in PartialUpload._fields]


def _upload(row: Any) -> PartialUpload:
    fields = {name: row[name] for name in PartialUpload._fields}
    return PartialUpload(**{**fields, "parts": tuple(json.loads(fields["parts"]))})
