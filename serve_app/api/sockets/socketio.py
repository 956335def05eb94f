"""Socket.IO at `/socket`: `audio:chunk` in, `transcription:partial` and `transcription:final` out.

A socket is one live session of 16 kHz mono pcm_s16le, unless `audio:start` says otherwise; its
fields are those of the live protocol's `start`. `audio:stop` asks for what is left, and
`transcription:end` follows.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from serve_app.api.backend import Backend
from serve_app.api.gate import arrival
from serve_app.api.legacy.streaming import parsed
from serve_app.dialects.frames import base64_bytes
from serve_app.dialects.native import NativeDialect
from serve_app.errors import ClientError, key_revoked
from serve_app.extras import SOCKET_IO, MissingExtra, module_of
from serve_app.identity.gate import Gate
from serve_app.identity.principal import Principal
from serve_app.identity.routes import SOCKETS
from serve_app.live.backlog import Backlog, ReaderTooSlow
from serve_app.live.driver import LiveSession, LiveSessions
from serve_app.live.events import (
    ClientErred,
    Close,
    ErrorReport,
    Event,
    Resumable,
    UtteranceEvent,
)
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import origin_of

PATH = "/socket"
NAMES = {
    "partial": "transcription:partial",
    "final": "transcription:final",
    "quality": "quality",
    "error": "error",
    "closed": "transcription:end",
}
ROOM_BYTES = 64 << 10
"""Of a message beyond its audio."""

MAX_ATTACHMENTS = 1
"""Binary frames of one message; python-socketio would collect ten thousand million."""

log = logging.getLogger("voxray.socketio")
log.setLevel(logging.CRITICAL)  # python-socketio would log a stack for each broken packet


class Listener:
    """One socket's session; events wait in a backlog until they are sent."""

    def __init__(
        self,
        caller: Principal,
        sessions: LiveSessions,
        dialect: NativeDialect,
        emit: Any,
        leave: Callable[[], Awaitable[None]],
    ) -> None:
        self._disconnect = leave
        self._revoked = False
        self._sessions = sessions
        self._dialect = dialect
        self._emit = emit
        self._backlog = Backlog(sessions.limits.max_unsent_events)
        self._pending = asyncio.Event()
        self._live: LiveSession | None = sessions.open(
            self._on_event,
            self._on_abandoned,
            origin=origin_of(caller, {}, "socketio", dialect.session_id),
        )
        self._sending = asyncio.create_task(self._send())

    def received(self, frame: str | bytes) -> None:
        if self._live:
            for fact in parsed(self._dialect, frame):
                self._live.feed(fact)

    def refused(self, error: ClientError) -> None:
        if self._live:
            self._live.feed(ClientErred(error))

    def close(self) -> None:
        if asyncio.current_task() is not self._sending:
            self._sending.cancel()
        self._leave()

    def _leave(self) -> None:
        """Give the session's place back, once it has ended or its socket has."""
        if self._live:
            self._sessions.close(self._live)
            self._live = None

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ErrorReport) and event.error.code == key_revoked().code:
            self._revoked = True
        if not isinstance(event, UtteranceEvent | Resumable):
            self._backlog.put(event)
            self._pending.set()

    def _on_abandoned(self, code: str) -> None:
        asyncio.get_running_loop().call_soon(self._leave)
        if self._revoked:
            return
        with contextlib.suppress(ReaderTooSlow):
            self._on_event(ErrorReport(ClientError(code, "the session ended early")))

    async def _send(self) -> None:
        """Owned by this listener; cancelled when it closes."""
        while True:
            await self._pending.wait()
            self._pending.clear()
            while self._backlog:
                event: Any = self._backlog.take()
                fields = orjson.loads(self._dialect.render(event, time.time()))
                if name := NAMES.get(fields.pop("type")):
                    await self._emit(name, fields)
                if isinstance(event, Close):
                    self._leave()
            if self._revoked:
                return await self._disconnect()


class SocketIo:
    """Every Socket.IO client of this ingress."""

    def __init__(
        self, backend: Backend, gate: Gate, sessions: LiveSessions, metrics: Metrics
    ) -> None:
        """Raises `MissingExtra` without python-socketio."""
        self._backend = backend
        self._gate = gate
        self._sessions = sessions
        self._metrics = metrics
        self._listeners: dict[str, Listener] = {}
        self._library = socketio = module_of(SOCKET_IO)
        most = sessions.limits.max_chunk_bytes * 2 + ROOM_BYTES
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            max_http_buffer_size=most,
            serializer=_bounded(socketio.packet.Packet),
            cors_allowed_origins=[],  # no check and no headers of its own: the gate's are for all
            logger=log,
            engineio_logger=log,
        )
        self._server.on("connect", self._connect)
        self._server.on("audio:start", self._start)
        self._server.on("audio:chunk", self._chunk)
        self._server.on("audio:stop", self._stop)
        self._server.on("disconnect", self._disconnect)
        self.app = socketio.ASGIApp(self._server, socketio_path="")

    async def shut(self) -> None:
        """Disconnect all clients, after what has been sent to them."""
        if self._server.eio.sockets:
            await self._server.eio.disconnect()

    async def _connect(self, sid: str, environ: Any, auth: Any = None) -> None:
        engine = self._backend.engines.transcriber
        dialect = NativeDialect(self._sessions.limits, uuid.uuid4().hex, engine)

        async def emit(name: str, fields: dict[str, Any]) -> None:
            await self._server.emit(name, fields, to=sid)

        async def leave() -> None:
            connection = self._server.manager.eio_sid_from_sid(sid, "/")
            await self._server.disconnect(sid)
            await self._server.eio.disconnect(connection)

        try:
            caller = await self._caller(environ, auth)
            self._listeners[sid] = Listener(caller, self._sessions, dialect, emit, leave)
        except ClientError as error:
            self._metrics.count_error(error.code)
            raise self._library.exceptions.ConnectionRefusedError(error.code) from error

    async def _caller(self, environ: Any, auth: Any) -> Principal:
        """The key is in `auth`, or in a header of the connection's first request. Raises
        `ClientError`."""
        request, key = environ["asgi.scope"], auth.get("key") if isinstance(auth, dict) else None
        came = arrival(request)
        if isinstance(key, str):
            came = came._replace(in_band=(key,))
        return await self._gate.admitted(SOCKETS[PATH], came)

    async def _start(self, sid: str, fields: Any = None) -> None:
        if not (listener := self._listeners.get(sid)):
            return
        fields = fields if isinstance(fields, dict) else {}
        try:
            listener.received(orjson.dumps({**fields, "type": "start"}).decode())
        except TypeError as error:
            listener.refused(ClientError("invalid_message", f"audio:start: {error}"))

    async def _chunk(self, sid: str, fields: Any = None) -> None:
        """Samples as bytes, or `{"audio": bytes or base64}`."""
        if not (listener := self._listeners.get(sid)):
            return
        try:
            listener.received(_audio(fields))
        except ClientError as error:
            listener.refused(error)

    async def _stop(self, sid: str, _: Any = None) -> None:
        if listener := self._listeners.get(sid):
            listener.received('{"type":"stop"}')

    async def _disconnect(self, sid: str, _: Any = None) -> None:
        if listener := self._listeners.pop(sid, None):
            listener.close()


def endpoint(
    backend: Backend,
    gate: Gate,
    sessions: LiveSessions,
    metrics: Metrics,
    close_last: Callable[[Callable[[], Awaitable[None]]], None],
) -> ASGIApp:
    """Socket.IO, or where python-socketio is not installed an answer that says so."""
    try:
        here = SocketIo(backend, gate, sessions, metrics)
    except MissingExtra as error:
        return JSONResponse(error.body(), error.status)
    close_last(here.shut)
    app: ASGIApp = here.app
    return app


def _bounded(packet: Any) -> Any:
    """python-socketio's packet, with as many binary attachments as a message here can have."""

    class Packet(packet):  # type: ignore[misc]
        def decode(self, encoded_packet: str) -> int:
            count: int = super().decode(encoded_packet) or 0
            if count > MAX_ATTACHMENTS:
                raise ValueError("too many attachments")
            return count

    return Packet


def _audio(fields: Any) -> bytes:
    """Raises `ClientError`."""
    audio = fields.get("audio", fields.get("data")) if isinstance(fields, dict) else fields
    if isinstance(audio, str):
        return base64_bytes(audio, "audio")
    if not isinstance(audio, bytes):
        raise ClientError("invalid_message", "audio:chunk takes bytes, or audio as base64")
    return audio
