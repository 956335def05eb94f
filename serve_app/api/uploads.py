"""A recording in a request's body, as a file that is gone afterwards."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from serve_app.config import Limits
from serve_app.errors import ClientError

MAX_FORM_FIELDS = 64
COPY_BYTES = 1 << 20
MULTIPART = "multipart/form-data"


@asynccontextmanager
async def uploaded(request: Request, limits: Limits) -> AsyncIterator[tuple[Path, FormData]]:
    """The file and the other fields of the form; no fields where the body is the file itself.

    Raises `ClientError` for a body that is empty, too large, or has no field `file`.
    """
    request = Request(request.scope, _bounded(request, limits.max_upload_bytes))
    with tempfile.NamedTemporaryFile(prefix="voxray-") as file:
        form = FormData()
        if request.headers.get("content-type", "").startswith(MULTIPART):
            async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
                upload = _file_of(form)
                while piece := await upload.read(COPY_BYTES):
                    file.write(piece)
        else:
            async for piece in request.stream():
                file.write(piece)
        file.flush()
        if not file.tell():
            raise ClientError("unreadable_audio", "the body is empty")
        yield Path(file.name), FormData([(k, v) for k, v in form.multi_items() if k != "file"])


def _bounded(request: Request, bound: int) -> Any:
    """The request's body, refused as soon as it grows too large."""
    left = bound

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise ClientError("upload_too_large", f"the body is larger than {bound} bytes")
        return message

    return receive


def _file_of(form: FormData) -> UploadFile:
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise ClientError("invalid_request", "the form needs a field `file` with the recording")
    return upload
