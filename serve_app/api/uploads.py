"""A recording in a request's body, as a temporary file."""

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from starlette.datastructures import FormData

from serve_app.admission.weights import Weights
from serve_app.api.multipart import MULTIPART, FileForm, is_form
from serve_app.config import Limits
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.security.concurrency import ConcurrencyLimit
from serve_app.security.scanning import Scanner


def form_body(
    fields: Mapping[str, object] | None = None, or_the_file: bool = False
) -> dict[str, object]:
    """OpenAPI's description of a body with a recording: a form with `file` and other `fields`, or,
    if allowed, the file itself."""
    file = {"type": "string", "format": "binary"}
    properties = {"file": file, **(fields or {})}
    schema = {"type": "object", "required": ["file"], "properties": properties}
    content: dict[str, object] = {MULTIPART: {"schema": schema}}
    if or_the_file:
        content["application/octet-stream"] = {"schema": file}
    return {"requestBody": {"required": True, "content": content}}


class Uploads:
    """Limits the recordings that are received, and those that are transcribed, at the same time.

    A slow client counts only towards the first limit.
    """

    def __init__(
        self,
        limits: Limits,
        retry_after_s: Callable[[], int],
        admit: Callable[[str], None],
        scanner: Scanner,
        weights: Weights,
    ) -> None:
        self._scanner = scanner
        code = "too_many_recordings"
        self._arriving = ConcurrencyLimit(
            limits.max_uploads, code, "uploads", retry_after_s, admit, weights
        )
        self._transcribed = ConcurrencyLimit(
            limits.max_recordings, code, "recordings", retry_after_s, weights=weights
        )

    @property
    def in_progress(self) -> int:
        """Recordings that arrive or are transcribed."""
        return self._arriving.in_use + self._transcribed.in_use

    @asynccontextmanager
    async def received(
        self, request: Request, caller: Principal
    ) -> AsyncIterator[tuple[Path, FormData]]:
        """The file and the other fields of the form; no fields if the body is the file itself.

        Counts as transcribed while open. Raises `ClientError` at the limits, and for a body that is
        empty, too large or too slow, or has no field `file`.
        """
        self._transcribed.check(caller.tenant)  # before an upload that would be refused
        with tempfile.NamedTemporaryFile(prefix="voxray-") as file:
            with self._arriving.slot(caller.tenant):
                form = FileForm(request) if is_form(request) else None
                async for piece in form.file() if form else request.stream():
                    file.write(piece)
                await self._scanner.check(file)
            if form and not form.filename:
                reason = "the form needs a field `file` with the recording"
                raise ClientError("invalid_request", reason)
            file.flush()
            if not file.tell():
                raise ClientError("unreadable_audio", "the body is empty")
            with self._transcribed.slot(caller.tenant):
                yield Path(file.name), FormData([*form.fields] if form else [])
