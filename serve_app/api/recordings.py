"""`POST /v1/transcribe`: one recording in the body, its transcript in the answer."""

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData

from deployments.decoding import Bounds, Undecodable, decode_in_process
from deployments.interfaces import SpeechOptions
from serve_app.api.backend import Backend
from serve_app.api.uploads import Uploads
from serve_app.config import Limits
from serve_app.errors import ClientError, invalid
from serve_app.live import recording
from serve_app.live.driver import LiveSessions
from serve_app.live.events import SessionMetrics
from serve_app.live.options import check_options
from serve_app.live.transcript import Form, Transcript, render

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


def router(backend: Backend, sessions: LiveSessions, uploads: Uploads) -> APIRouter:
    routes = APIRouter(tags=["recordings"])
    limits = sessions.limits

    @routes.post("/v1/transcribe", response_model=Transcript, openapi_extra=BODY)
    @routes.post("/transcribe/file", response_model=Transcript, include_in_schema=False)
    async def transcribe(
        request: Request, asked: Annotated[Asked, Query()]
    ) -> Response | Transcript:
        """Transcribe an audio file: wav, flac, mp3, ogg, opus, webm, m4a. The body is the file
        itself, or multipart with a `file`."""
        began = time.monotonic()
        collected = recording.Collector()
        async with uploads.received(request) as (path, form):
            asked = _asked_in(form, asked)
            options = _options(asked, backend, limits)
            session = await transcribe_file(sessions, collected, path, options)
        result = recording.transcript(
            collected, session, asked.language, backend.engines.transcriber.name, began
        )
        if asked.format == "json":
            return result
        return PlainTextResponse(
            render(asked.format, result.segments), media_type=MEDIA_TYPES[asked.format]
        )

    return routes


def _recording_limits(limits: Limits) -> Limits:
    """A recording may be long, and silent for long."""
    whole = limits.max_recording_s + 1
    return limits.model_copy(
        update={"max_session_s": whole, "max_silence_s": whole, "idle_timeout_s": whole}
    )


def _options(asked: Asked, backend: Backend, limits: Limits) -> SpeechOptions:
    options = SpeechOptions(asked.language, False, tuple(asked.hotwords), asked.grammar)
    check_options(options, backend.engines.transcriber, limits)
    return options


async def transcribe_file(
    sessions: LiveSessions, collected: recording.Collector, path: Path, options: SpeechOptions
) -> SessionMetrics:
    """Through a live session into the collector. Raises `ClientError`."""
    limits = sessions.limits
    live = sessions.open(collected.on_event, collected.on_abandoned, _recording_limits(limits))
    try:
        bounds = Bounds(limits.max_recording_s, limits.decode_timeout_s)
        windows = decode_in_process(path, bounds)
        await recording.transcribe(live, collected, windows, options, limits.max_buffered_audio_s)
    except Undecodable as error:
        raise ClientError(error.code, str(error)) from error
    finally:
        sessions.close(live)
    return live.metrics()


def _asked_in(form: FormData, asked: Asked) -> Asked:
    fields: dict[str, Any] = {key: form.get(key) for key in form}
    if "hotwords" in fields:
        fields["hotwords"] = form.getlist("hotwords")
    given = asked.model_dump(exclude_unset=True) | fields
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        raise invalid(error, given) from error
