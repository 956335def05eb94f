"""`POST /transcribe/stream`: audio in a chunked body; the live protocol's events as server-sent
events while the body is still being received."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from deployments.interfaces import RATE
from serve_app.api.backend import Backend
from serve_app.api.streamed import EVENT_STREAM, Streamed, event
from serve_app.dialects.native import NativeDialect
from serve_app.errors import ClientError
from serve_app.live.driver import LiveSession, LiveSessions
from serve_app.live.events import ClientErred, Close, Event, Fact, UtteranceEvent

PIECE_BYTES = 32_000
AHEAD_SHARE = 0.5
"""Of the session's limit; an utterance must fit into the rest, or the stream would stall."""

UPLOAD = {"requestBody": {"required": False, "content": {"application/octet-stream": {}}}}


class StreamOptions(BaseModel):
    """The query: the audio format, and the language."""

    model_config = ConfigDict(extra="forbid")

    sample_rate: int = Field(16_000, ge=8000, le=48_000)
    encoding: str = "pcm_s16le"
    channels: int = Field(1, ge=1, le=2)
    language: str | None = None


def router(backend: Backend, sessions: LiveSessions) -> APIRouter:
    routes = APIRouter(prefix="/transcribe", tags=["older paths"])

    @routes.post("/stream", openapi_extra=UPLOAD)
    async def stream(request: Request, options: Annotated[StreamOptions, Query()]) -> Response:
        """Raw samples in a chunked body; the answers of `WS /v1/transcribe/stream` as events."""
        dialect = NativeDialect(sessions.limits, uuid.uuid4().hex, backend.engines.transcriber)
        start = {"type": "start", **options.model_dump(), "language": options.language or None}
        begin = dialect.parse(orjson.dumps(start).decode())
        return _Duplex(_events(request, sessions, dialect, begin), EVENT_STREAM)

    return routes


class _Duplex(Streamed):
    """Answers while the body is being read. Starlette would read the body, too, to notice that the
    client has disconnected."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _events(
    request: Request, sessions: LiveSessions, dialect: NativeDialect, begin: list[Fact]
) -> AsyncGenerator[bytes, None]:
    """The queue is bounded because the body is not read while much audio waits."""
    frames: asyncio.Queue[bytes | None] = asyncio.Queue()
    progressed = asyncio.Event()

    def on_event(event_: Event) -> None:
        if isinstance(event_, UtteranceEvent):
            return
        frame = dialect.render(event_, round(time.time(), 3))
        frames.put_nowait(b"data: " + frame + b"\n\n")
        if isinstance(event_, Close):
            frames.put_nowait(None)

    def on_abandoned(code: str) -> None:
        frames.put_nowait(event(ClientError(code, "the session ended early").body()))
        frames.put_nowait(None)

    live = sessions.open(on_event, on_abandoned)
    live.progressed = progressed.set
    feeding = asyncio.create_task(_feed(request, live, dialect, begin, sessions, progressed))
    feeding.add_done_callback(lambda it: _ended(it, frames))
    try:
        while (piece := await frames.get()) is not None:
            yield piece
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        sessions.close(live)


def _ended(feeding: "asyncio.Task[None]", frames: "asyncio.Queue[bytes | None]") -> None:
    """An incomplete body also ends the answer."""
    if not feeding.cancelled() and feeding.exception():
        frames.put_nowait(None)


async def _feed(
    request: Request,
    live: LiveSession,
    dialect: NativeDialect,
    begin: list[Fact],
    sessions: LiveSessions,
    progressed: asyncio.Event,
) -> None:
    """Reads the body no faster than it is recognised."""
    ahead = int(sessions.limits.max_buffered_audio_s * AHEAD_SHARE * RATE)
    _feed_all(live, begin)
    rest = b""
    async for chunk in request.stream():
        rest += chunk
        while len(rest) >= PIECE_BYTES:
            while live.ahead > ahead:
                progressed.clear()
                await progressed.wait()
            _feed_all(live, parsed(dialect, rest[:PIECE_BYTES]))
            rest = rest[PIECE_BYTES:]
    if rest:
        _feed_all(live, parsed(dialect, rest))
    _feed_all(live, parsed(dialect, '{"type":"stop"}'))


def parsed(dialect: NativeDialect, frame: str | bytes) -> list[Fact]:
    """The frame's facts; for an invalid frame, its error."""
    try:
        return dialect.parse(frame)
    except ClientError as error:
        return [ClientErred(error)]


def _feed_all(live: LiveSession, facts: list[Fact]) -> None:
    for fact in facts:
        live.feed(fact)
