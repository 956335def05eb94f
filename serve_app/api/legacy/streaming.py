"""`POST /transcribe/stream`: audio in a chunked body, the live protocol's events as server-sent
events, while the body still comes."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
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
"""Of the session's bound: an utterance must fit in, or nothing would ever be dealt with."""

UPLOAD = {"requestBody": {"required": False, "content": {"application/octet-stream": {}}}}


def router(backend: Backend, sessions: LiveSessions) -> APIRouter:
    routes = APIRouter(prefix="/transcribe", tags=["older paths"])

    @routes.post("/stream", openapi_extra=UPLOAD)
    async def stream(
        request: Request,
        sample_rate: Annotated[int, Query(ge=8000, le=48_000)] = 16_000,
        encoding: str = "pcm_s16le",
        channels: Annotated[int, Query(ge=1, le=2)] = 1,
        language: str | None = None,
    ) -> Response:
        """Raw samples in a chunked body; what `WS /v1/transcribe/stream` says as events."""
        dialect = NativeDialect(sessions.limits, uuid.uuid4().hex, backend.engines.transcriber)
        start = {"type": "start", "sample_rate": sample_rate, "encoding": encoding}
        start |= {"channels": channels, **({"language": language} if language else {})}
        begin = dialect.parse(orjson.dumps(start).decode())
        return _Both(_events(request, sessions, dialect, begin), EVENT_STREAM)

    return routes


class _Both(Streamed):
    """Answers while the body is read, which therefore is nobody else's to read: Starlette would
    look in it for the client's going away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _events(
    request: Request, sessions: LiveSessions, dialect: NativeDialect, begin: list[Fact]
) -> AsyncGenerator[bytes, None]:
    """Finals are bounded by the audio ahead, which waits for them."""
    said: asyncio.Queue[bytes | None] = asyncio.Queue()
    moved = asyncio.Event()

    def on_event(happened: Event) -> None:
        if isinstance(happened, UtteranceEvent):
            return
        frame = dialect.render(happened, round(time.time(), 3))
        said.put_nowait(b"data: " + frame + b"\n\n")
        if isinstance(happened, Close):
            said.put_nowait(None)

    def on_abandoned(code: str) -> None:
        said.put_nowait(event(ClientError(code, "the session ended early").body()))
        said.put_nowait(None)

    live = sessions.open(on_event, on_abandoned)
    live.progressed = moved.set
    feeding = asyncio.create_task(_feed(request, live, dialect, begin, sessions, moved))
    feeding.add_done_callback(lambda it: _ended(it, said))
    try:
        while (piece := await said.get()) is not None:
            yield piece
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        sessions.close(live)


def _ended(feeding: "asyncio.Task[None]", said: "asyncio.Queue[bytes | None]") -> None:
    """A body that breaks off ends the answer, too."""
    if not feeding.cancelled() and feeding.exception():
        said.put_nowait(None)


async def _feed(
    request: Request,
    live: LiveSession,
    dialect: NativeDialect,
    begin: list[Fact],
    sessions: LiveSessions,
    moved: asyncio.Event,
) -> None:
    """The body, no faster than it is dealt with."""
    ahead = int(sessions.limits.max_buffered_audio_s * AHEAD_SHARE * RATE)
    _all(live, begin)
    rest = b""
    async for chunk in request.stream():
        rest += chunk
        while len(rest) >= PIECE_BYTES:
            while live.ahead > ahead:
                moved.clear()
                await moved.wait()
            _all(live, parsed(dialect, rest[:PIECE_BYTES]))
            rest = rest[PIECE_BYTES:]
    if rest:
        _all(live, parsed(dialect, rest))
    _all(live, parsed(dialect, '{"type":"stop"}'))


def parsed(dialect: NativeDialect, frame: str | bytes) -> list[Fact]:
    """What a frame says, or that it says nothing that the protocol knows."""
    try:
        return dialect.parse(frame)
    except ClientError as error:
        return [ClientErred(error)]


def _all(live: LiveSession, facts: list[Fact]) -> None:
    for fact in facts:
        live.feed(fact)
