"""`POST /transcribe/stream`: audio in a chunked body; the live protocol's events as server-sent
events while the body is still being received."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from deployments.interfaces import RATE
from serve_app.admission.places import Place
from serve_app.api.backend import Backend
from serve_app.api.streamed import EVENT_STREAM, Streamed, event
from serve_app.dialects.native import NativeDialect
from serve_app.errors import ClientError
from serve_app.identity.principal import Caller, Principal
from serve_app.live.backlog import Backlog
from serve_app.live.driver import CHUNKED, LiveSession, LiveSessions
from serve_app.live.events import ClientErred, Close, Event, Fact, Resumable, UtteranceEvent
from serve_app.observability.origin import origin_of

PIECE_BYTES = 32_000
AHEAD_SHARE = 0.5
"""Of the session's limit; an utterance must fit into the rest, or the stream would stall."""

UPLOAD = {"requestBody": {"required": False, "content": {"application/octet-stream": {}}}}


class LegacyStreamOptions(BaseModel):
    """The query: the audio format, and the language."""

    model_config = ConfigDict(extra="forbid")

    sample_rate: int = Field(16_000, ge=8000, le=48_000)
    encoding: str = "pcm_s16le"
    channels: int = Field(1, ge=1, le=2)
    language: str | None = None


def router(backend: Backend, sessions: LiveSessions) -> APIRouter:
    routes = APIRouter(prefix="/transcribe", tags=["older paths"])

    @routes.post("/stream", openapi_extra=UPLOAD)
    async def stream(
        caller: Caller, request: Request, options: Annotated[LegacyStreamOptions, Query()]
    ) -> Response:
        """Raw samples in a chunked body; the answers of `WS /v1/transcribe/stream` as events."""
        dialect = NativeDialect(sessions.limits, uuid.uuid4().hex, backend.engines.transcriber)
        start = {"type": "start", **options.model_dump(), "language": options.language or None}
        begin = dialect.parse(orjson.dumps(start).decode())
        place = sessions.admit(caller, is_request=False)
        return _Duplex(_events(caller, request, sessions, place, dialect, begin), EVENT_STREAM)

    return routes


class _Duplex(Streamed):
    """Answers while the body is being read. Starlette would read the body, too, to notice that the
    client has disconnected."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _events(
    caller: Principal,
    request: Request,
    sessions: LiveSessions,
    place: Place,
    dialect: NativeDialect,
    begin: list[Fact],
) -> AsyncGenerator[bytes, None]:
    unsent = _Unsent(sessions.limits.max_unsent_events)
    progressed = asyncio.Event()
    live = sessions.open(
        unsent.on_event,
        unsent.on_abandoned,
        origin=origin_of(caller, request.headers, CHUNKED, dialect.session_id),
        place=place,
    )
    live.progressed = progressed.set
    feeding = asyncio.create_task(_feed(request, live, dialect, begin, sessions, progressed))
    feeding.add_done_callback(unsent.on_fed)
    try:
        async for item in unsent.events():
            if isinstance(item, ClientError):
                yield event(item.body())
            else:
                yield b"data: " + dialect.render(item, round(time.time(), 3)) + b"\n\n"
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        sessions.close(live)


class _Unsent:
    """Events on their way to a client, at most `bound` of those that must not be dropped."""

    def __init__(self, bound: int) -> None:
        self._backlog = Backlog(bound)
        self._ended: ClientError | None = None
        self._is_over = False
        self._changed = asyncio.Event()

    def on_event(self, event_: Event) -> None:
        """Raises `ReaderTooSlow`, which ends the session."""
        if not isinstance(event_, UtteranceEvent | Resumable):
            self._backlog.put(event_)
            self._changed.set()

    def on_abandoned(self, code: str) -> None:
        self._ended = ClientError(code, "the session ended early")
        self._changed.set()

    def on_fed(self, feeding: "asyncio.Task[None]") -> None:
        """An incomplete body also ends the answer."""
        if not feeding.cancelled() and feeding.exception():
            self._is_over = True
            self._changed.set()

    async def events(self) -> AsyncGenerator[Any, None]:
        """The session's events, up to `Close` or the error that ended it."""
        while not self._is_over:
            while self._backlog:
                event_ = self._backlog.take()
                yield event_
                if isinstance(event_, Close):
                    return
            if self._ended:
                yield self._ended
                return
            await self._changed.wait()
            self._changed.clear()


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
