"""A recording in a request's body, as a file that is gone afterwards."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from serve_app.config import Limits
from serve_app.errors import ClientError

MAX_FORM_FIELDS = 64
COPY_BYTES = 1 << 20
MULTIPART = "multipart/form-data"
PIECE_TIMEOUT_S = 30.0
Piece = TypeVar("Piece")


async def in_time(piece: Awaitable[Piece], deadline: float) -> Piece:
    """A piece of a body, which must come soon, and before the event loop's time `deadline`.

    Raises `ClientError`.
    """
    soon = asyncio.get_running_loop().time() + PIECE_TIMEOUT_S
    try:
        async with asyncio.timeout_at(min(deadline, soon)):
            return await piece
    except TimeoutError as error:
        raise ClientError("idle_timeout", "the body did not arrive in time") from error


@asynccontextmanager
async def uploaded(request: Request, limits: Limits) -> AsyncIterator[tuple[Path, FormData]]:
    """The file and the other fields of the form; no fields where the body is the file itself.

    Raises `ClientError` for a body that is empty, too large or too slow, or has no field `file`.
    """
    request = Request(request.scope, _bounded(request, limits))
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


def _bounded(request: Request, limits: Limits) -> Any:
    """The request's body, refused as soon as it grows too large or takes too long."""
    left = bound = limits.max_upload_bytes
    deadline = asyncio.get_running_loop().time() + limits.upload_timeout_s

    async def receive() -> Message:
        nonlocal left
        message = await in_time(request.receive(), deadline)
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
