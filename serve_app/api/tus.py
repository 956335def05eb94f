"""`/v1/uploads`: resumable uploads of recordings (tus 1.0, https://tus.io/protocols/resumable-upload).

The extensions creation, expiration and termination. When the last byte is there the upload becomes
a job, and the answer's header `X-Voxray-Job` has its id.
"""

import base64
import binascii
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from serve_app.api.jobs import Id
from serve_app.api.submission import Submission
from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal
from serve_app.jobs.resumable import PartialUpload, offset_conflict

VERSION = "1.0.0"
CONTENT = "application/offset+octet-stream"
JOB = "X-Voxray-Job"
MOST_METADATA = 8_000
LISTS = ("hotwords",)
"""Options with several values, one in each line."""

Length = Annotated[int, Header(ge=1, le=1 << 50, description="Bytes of the recording.")]
Offset = Annotated[
    int | None, Header(ge=0, le=1 << 50, description="How far the upload is, in bytes; needed.")
]
Metadata = Annotated[
    str,
    Header(
        max_length=MOST_METADATA,
        description="`filename` and the options of a job: names with values in base64, separated "
        "by commas. `hotwords` has one in each line.",
    ),
]


class TusRoutes:
    """Each method is a route."""

    def __init__(self, submission: Submission) -> None:
        self._submission = submission
        self._jobs = submission.jobs
        self._uploads = submission.jobs.uploads

    def router(self) -> APIRouter:
        routes = APIRouter(prefix="/v1/uploads", tags=["jobs"])
        routes.options("", include_in_schema=False)(self.capabilities)
        routes.post("", status_code=201)(self.create)
        routes.get("/{id}")(self.progress)  # and HEAD, as for every path
        routes.patch("/{id}", status_code=204)(self.append)
        routes.delete("/{id}", status_code=204)(self.delete)
        return routes

    async def capabilities(self) -> Response:
        """What this server supports of tus."""
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": "creation,expiration,termination",
            "Tus-Max-Size": str(self._jobs.config.max_upload_bytes),
        }
        return _answer(204, headers)

    async def create(
        self,
        caller: Caller,
        request: Request,
        upload_length: Length,
        upload_metadata: Metadata = "",
    ) -> Response:
        """Begin an upload. Its options are checked now, and its size against all limits."""
        _check_version(request)
        fields = _metadata(upload_metadata)
        self._submission.checked(_options(fields))
        await self._submission.check_size(caller, upload_length)
        made = await self._uploads.create(caller, upload_length, fields)
        return _answer(201, {"Location": f"{request.url.path}/{made.id}", **_state(made)})

    async def progress(self, caller: Caller, id_: Id) -> Response:
        """How far it is."""
        upload = await self._uploads.get(caller.tenant, id_)
        return _answer(200, {**_state(upload), "Upload-Length": str(upload.size)})

    async def append(
        self, caller: Caller, id_: Id, request: Request, upload_offset: Offset = None
    ) -> Response:
        """The next bytes. What has arrived when the connection breaks is kept."""
        upload = await self._uploads.get(caller.tenant, id_)
        _check_version(request)
        if upload_offset is None:
            raise ClientError("invalid_request", "`Upload-Offset` is missing")
        if request.headers.get("content-type") != CONTENT:
            raise ClientError("unsupported_media", f"send the bytes as {CONTENT}")
        if upload_offset != upload.received:
            raise offset_conflict()
        with self._submission.receiving(caller):
            if not upload.is_whole:
                upload = await self._uploads.append(upload, _arriving(request))
            if upload.is_whole and not upload.job_id:
                upload = await self._submitted(caller, upload)
        return _answer(204, _state(upload))

    async def delete(self, caller: Caller, id_: Id) -> Response:
        """Give it up. A job that it has become stays."""
        await self._uploads.delete(await self._uploads.get(caller.tenant, id_))
        return _answer(204, {})

    async def _submitted(self, caller: Principal, upload: PartialUpload) -> PartialUpload:
        """One that was submitted before, when this server died, is the same job again."""
        fields = await self._uploads.fields(upload)
        name, options = fields.get("filename", ""), self._submission.checked(_options(fields))
        content = self._uploads.content(upload)
        job = await self._submission.submit_stored(
            caller, content, upload.size, name, options, upload.id
        )
        await self._uploads.become(upload, job.id)
        return upload._replace(job_id=job.id)


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    """Until the body, or the connection, ends."""
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect:
        return


def _answer(status: int, headers: dict[str, str]) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION, **headers})


def _state(upload: PartialUpload) -> dict[str, str]:
    state = {
        "Upload-Offset": str(upload.received),
        "Upload-Expires": formatdate(upload.expires, usegmt=True),
    }
    return {**state, JOB: upload.job_id} if upload.job_id else state


def _check_version(request: Request) -> None:
    if (version := request.headers.get("tus-resumable")) != VERSION:
        reason = f"`Tus-Resumable` is {(version or 'missing')[:20]!r}; this server has {VERSION}"
        raise ClientError("tus_version", reason)


def _metadata(header: str) -> dict[str, str]:
    """Raises `ClientError`."""
    fields: dict[str, str] = {}
    for pair in filter(None, (it.strip() for it in header.split(","))):
        name, _, value = pair.partition(" ")
        try:
            fields[name[:64]] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            reason = f"`Upload-Metadata`: the value of {name[:64]!r} is not base64 of UTF-8"
            raise ClientError("invalid_request", reason) from error
    return fields


def _options(fields: dict[str, str]) -> dict[str, Any]:
    """What is said of the file is no option."""
    options: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in ("filename", "filetype") and value:
            options[name] = value.splitlines() if name in LISTS else value
    return options
