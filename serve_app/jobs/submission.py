"""Accepts recordings: streams them to the object store, then inserts the job."""

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from serve_app.config import JobsConfig, StorageConfig
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.jobs.database import Database
from serve_app.jobs.job import Job, JobOptions
from serve_app.jobs.media import HEAD_BYTES, media_type
from serve_app.jobs.objects import Objects
from serve_app.jobs.queue import Queue, Submitted, new_id
from serve_app.jobs.resumable import ResumableUploads
from serve_app.jobs.revisions import Revisions
from serve_app.jobs.room import Room, check_size
from serve_app.jobs.search_index import SearchIndex
from serve_app.jobs.storage_keys import private_of
from serve_app.jobs.webhooks.delivery import Webhooks
from serve_app.security.scanning import Scanner

log = logging.getLogger("voxray.jobs")


class Particulars(NamedTuple):
    """The fields of a form with a recording."""

    filename: str
    options: JobOptions
    idempotency_key: str | None


class Upload(NamedTuple):
    """A recording being uploaded. Its particulars are known, and checked, after it was read."""

    owner: Principal
    pieces: AsyncIterator[bytes]
    expected_bytes: int
    particulars: Callable[[], Particulars]
    rooms: Sequence[Room] = ()
    """What the tenant and the key may store."""


class _Measured:
    """The pieces of an upload, with their size, digest and media type."""

    def __init__(
        self, pieces: AsyncIterator[bytes], most: int, free: Sequence[tuple[int, Room]]
    ) -> None:
        self._pieces = pieces
        self._most = most
        self._free = free
        self._hash = hashlib.sha256()
        self.size = 0
        self.media_type = ""

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        head = b""
        async for piece in self._pieces:
            self._take(piece)
            if not self.media_type:
                head += piece
                if len(head) < HEAD_BYTES:
                    continue
                self.media_type, piece = media_type(head), head
            yield piece
        if not self.size:
            raise ClientError("empty_upload", "the field `file` of the form is missing or empty")
        if not self.media_type:
            self.media_type = media_type(head)
            yield head

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.size += len(piece)
        if self.size > self._most:
            raise ClientError(
                "upload_too_large", f"the recording is larger than the limit of {self._most} bytes"
            )
        check_size(self.size, self._free)


class Jobs:
    """What clients can do with jobs. All methods raise `ClientError`."""

    def __init__(
        self, storage: StorageConfig, config: JobsConfig, scanner: Scanner | None = None
    ) -> None:
        self.config = config
        self._scanner = scanner or Scanner()
        self.database = Database(storage.database_url)
        self.objects = Objects(storage)
        private = private_of(storage)
        self.queue = Queue(self.database, config.lease_s, private)
        self.webhooks = Webhooks(self.database, config.webhook, private)
        self.revisions = Revisions(self.database, self.objects)
        self.uploads = ResumableUploads(self.database, self.objects)
        self.search = SearchIndex(self.database, self.objects, private)

    async def submit(self, upload: Upload) -> tuple[Job, bool]:
        """The job, and whether it is new."""
        self.objects.check_room(upload.expected_bytes)
        free = await self.queue.free(upload.owner.tenant, upload.rooms, upload.expected_bytes)
        id_ = new_id()
        owner = upload.owner
        path = f"{owner.tenant}/{id_}"
        sealed_key = self.objects.new_key(path)
        measured = _Measured(upload.pieces, self.config.max_upload_bytes, free)
        async with aclosing(self._scanner.passed(aiter(measured))) as pieces:
            await self.objects.put_stream(f"{path}/audio", sealed_key, pieces)
        try:
            filename, options, idempotency_key = upload.particulars()
            asked = Submitted(
                id_,
                owner.tenant,
                options,
                filename,
                measured.media_type,
                measured.size,
                measured.digest,
                idempotency_key,
                sealed_key,
                key=owner.key,
            )
            job, is_new = await self.queue.submit(asked, self._waiting(upload), upload.rooms)
            if is_new:
                fields = {"job": job.id, "tenant": job.tenant, "bytes": job.size}
                log.info("job_submitted", extra=fields)
        except BaseException:
            await self.objects.delete(path)
            raise
        if not is_new:
            await self.objects.delete(path)
        return job, is_new

    def _waiting(self, upload: Upload) -> int:
        """The tenant's own limit, or everybody's."""
        own = [room.waiting for room in upload.rooms if not room.key and room.waiting]
        return own[0] if own else self.config.max_waiting

    async def delete(self, job: Job) -> Job | None:
        """The job, cancelled or being cancelled; None if it had ended and is now deleted."""
        after = await self.queue.cancel(job)
        if after is None or after.ended:
            await self.objects.delete(f"{job.tenant}/{job.id}")
        return after

    async def close(self) -> None:
        await self.database.close()
