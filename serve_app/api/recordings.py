"""`POST /v1/transcribe`: a recording in the body, its transcript in the answer."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData

from deployments.interfaces import SpeechOptions
from serve_app.api.backend import Backend
from serve_app.api.hang_up import while_connected
from serve_app.api.uploads import Uploads, form_body
from serve_app.config import Limits
from serve_app.errors import invalid
from serve_app.identity.principal import Caller
from serve_app.jobs.foreground import Recording, Recordings
from serve_app.live.driver import LiveSessions
from serve_app.live.options import check_options
from serve_app.live.transcript import Form, Transcript, render

MEDIA_TYPES = {"txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}

BODY = form_body(or_the_file=True)


class Asked(BaseModel):
    """Options in the query or, with a multipart body, in its fields."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = None
    hotwords: list[str] = []
    grammar: str | None = None
    format: Form = "json"


def router(
    backend: Backend, sessions: LiveSessions, uploads: Uploads, recordings: Recordings
) -> APIRouter:
    routes = APIRouter(tags=["recordings"])
    limits = sessions.limits

    @routes.post("/v1/transcribe", response_model=Transcript, openapi_extra=BODY)
    @routes.post("/transcribe/file", response_model=Transcript, include_in_schema=False)
    async def transcribe(
        caller: Caller, request: Request, asked: Annotated[Asked, Query()]
    ) -> Response | Transcript:
        """Transcribe an audio file: wav, flac, mp3, ogg, opus, webm, m4a. The body is the file
        itself, or multipart with a `file`."""
        began = time.monotonic()
        async with uploads.received(request, caller) as (path, form):
            asked = _options_of(form, asked)
            options = _options(asked, backend, limits)
            async with recordings.open(path, limits, caller) as found:
                await while_connected(request, found.transcribe(options))
        result = _transcript(found, asked.language, backend.engines.transcriber.name, began)
        if asked.format == "json":
            return result
        return PlainTextResponse(
            render(asked.format, result.segments), media_type=MEDIA_TYPES[asked.format]
        )

    return routes


def _options(asked: Asked, backend: Backend, limits: Limits) -> SpeechOptions:
    hotwords = tuple(asked.hotwords)
    options = SpeechOptions(asked.language, False, hotwords, asked.grammar, batch=True)
    check_options(options, backend.engines.transcriber, limits)
    return options


def _transcript(found: Recording, language: str | None, engine: str, began: float) -> Transcript:
    return Transcript(
        text=found.text,
        duration_ms=found.audio_ms,
        language=language or found.language,
        segments=found.segments,
        words=found.words,
        engine=engine,
        processing_ms=round((time.monotonic() - began) * 1000),
    )


def _options_of(form: FormData, asked: Asked) -> Asked:
    fields: dict[str, Any] = {key: form.get(key) for key in form}
    if "hotwords" in fields:
        fields["hotwords"] = form.getlist("hotwords")
    options = asked.model_dump(exclude_unset=True) | fields
    try:
        return Asked.model_validate(options)
    except ValidationError as error:
        raise invalid(error, options) from error
