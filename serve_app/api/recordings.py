"""`POST /v1/transcribe`: one recording in the body, its transcript in the answer."""

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from deployments.decoding import Bounds, Undecodable, decode_in_process
from deployments.interfaces import SpeechOptions
from serve_app import recording
from serve_app.config import Limits
from serve_app.errors import ClientError, complaint
from serve_app.live import LiveSession, LiveSessions
from serve_app.metrics import Metrics
from serve_app.options import check_options
from serve_app.transcript import Form, Transcript, render

MAX_FORM_FIELDS = 64
COPY_BYTES = 1 << 20
MEDIA_TYPES = {"txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Asked(BaseModel):
    """What may stand in the query or, with a multipart body, in its fields."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None
    hotwords: list[str] = []
    grammar: str | None = None
    format: Form = "json"


def router(models: Any, sessions: LiveSessions, metrics: Metrics) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["recordings"])
    limits = sessions.limits
    busy = _Places(limits.max_recordings, limits.retry_after_s)

    @routes.post("/transcribe", response_model=Transcript, openapi_extra=BODY)
    async def transcribe(
        request: Request, asked: Annotated[Asked, Query()]
    ) -> Response | Transcript:
        """Transcribe an audio file: wav, flac, mp3, ogg, opus, webm, m4a. The body is the file
        itself, or multipart with a `file`."""
        began = time.monotonic()
        metrics.count_request()
        async with busy.place(), _uploaded(request, asked, limits) as (path, asked):
            options = _options(asked, models, limits)
            collected = recording.Collector()
            live = sessions.open(
                collected.on_event, collected.on_abandoned, _recording_limits(limits)
            )
            try:
                await _transcribe(live, collected, path, options, limits)
            finally:
                sessions.close(live)
        result = recording.transcript(collected, live, asked.language, models.engine, began)
        metrics.request_ms.add(result.processing_ms)
        if asked.format == "json":
            return result
        return PlainTextResponse(
            render(asked.format, result.segments), media_type=MEDIA_TYPES[asked.format]
        )

    return routes


class _Places:
    """How many recordings are worked on at once; more are refused rather than queued."""

    def __init__(self, places: int, retry_after_s: int) -> None:
        self._free = self._all = places
        self._retry_after_s = retry_after_s

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        if not self._free:
            raise ClientError(
                "too_many_recordings",
                f"{self._all} recordings are being transcribed already",
                self._retry_after_s,
            )
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def _recording_limits(limits: Limits) -> Limits:
    """A recording may be long, and silent for long."""
    whole = limits.max_recording_s + 1
    return limits.model_copy(
        update={"max_session_s": whole, "max_silence_s": whole, "idle_timeout_s": whole}
    )


def _options(asked: Asked, models: Any, limits: Limits) -> SpeechOptions:
    options = SpeechOptions(asked.language, False, tuple(asked.hotwords), asked.grammar)
    check_options(options, models.engine, models.languages, limits)
    return options


async def _transcribe(
    live: LiveSession,
    collected: recording.Collector,
    path: Path,
    options: SpeechOptions,
    limits: Limits,
) -> None:
    bounds = Bounds(limits.max_recording_s, limits.decode_timeout_s)
    try:
        windows = decode_in_process(path, bounds)
        await recording.transcribe(live, collected, windows, options, limits.max_audio_ahead_s)
    except Undecodable as error:
        raise ClientError(error.code, str(error)) from error


@asynccontextmanager
async def _uploaded(
    request: Request, asked: Asked, limits: Limits
) -> AsyncIterator[tuple[Path, Asked]]:
    """The body's recording as a file that is gone afterwards, and what was asked with it."""
    request = Request(request.scope, _bounded(request, limits.max_upload_bytes))
    with tempfile.NamedTemporaryFile(prefix="voxray-") as file:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
                upload = _file_of(form)
                while piece := await upload.read(COPY_BYTES):
                    file.write(piece)
                asked = _asked_in(form, asked)
        else:
            async for piece in request.stream():
                file.write(piece)
        file.flush()
        if not file.tell():
            raise ClientError("unreadable_audio", "the body is empty")
        yield Path(file.name), asked


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


def _asked_in(form: FormData, asked: Asked) -> Asked:
    fields: dict[str, Any] = {key: form.get(key) for key in form if key != "file"}
    if "hotwords" in fields:
        fields["hotwords"] = form.getlist("hotwords")
    try:
        return Asked.model_validate(asked.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise ClientError("invalid_request", complaint(error)) from error
