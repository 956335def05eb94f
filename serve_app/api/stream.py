"""`WS /v1/transcribe/stream`: a socket in front of a live session.

The reader turns frames into facts, the writer turns events into frames; whichever ends first ends
the other. The reader stops reading while the session has a message's worth of audio too much
ahead only through the session's own bound: past it the client is told and the session closes.
"""

import time
import uuid
from typing import Any

import anyio
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from serve_app.api.errors import retry_headers
from serve_app.dialects.native import NativeDialect
from serve_app.errors import ClientError
from serve_app.live import LiveSession, LiveSessions
from serve_app.metrics import Metrics
from serve_app.session import ClientErred, Close, KeptAlive, Started, TellError

CLOSE_TIMEOUT_S = 1.0


def route(models: Any, sessions: LiveSessions, metrics: Metrics) -> WebSocketRoute:
    async def endpoint(socket: WebSocket) -> None:
        metrics.count_request()
        try:
            live = sessions.open()
        except ClientError as refusal:
            metrics.count_error(refusal.code)
            return await _refuse(socket, refusal)
        metrics.active_connections += 1
        dialect = NativeDialect(
            sessions.limits, uuid.uuid4().hex, models.engine, models.languages
        )
        try:
            await socket.accept()
            await _serve(socket, live, dialect, metrics)
        except WebSocketDisconnect:
            pass
        finally:
            metrics.active_connections -= 1
            sessions.close(live)

    return WebSocketRoute("/v1/transcribe/stream", endpoint)


async def _refuse(socket: WebSocket, refusal: ClientError) -> None:
    """Before the upgrade: a plain HTTP answer."""
    answer = JSONResponse(refusal.body(), refusal.status, retry_headers(refusal))
    await socket.send_denial_response(answer)


async def _serve(
    socket: WebSocket, live: LiveSession, dialect: NativeDialect, metrics: Metrics
) -> None:
    await _send(socket, dialect.hello())
    async with anyio.create_task_group() as tasks:
        live.abandon = tasks.cancel_scope.cancel
        tasks.start_soon(_write, socket, live, dialect, metrics, tasks.cancel_scope)
        await _read(socket, live, dialect)
        tasks.cancel_scope.cancel()
    if live.failure and socket.client_state is WebSocketState.CONNECTED:
        await _close_failed(socket, live.failure, metrics)


async def _read(socket: WebSocket, live: LiveSession, dialect: NativeDialect) -> None:
    receive = socket.receive
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        frame = message.get("bytes")
        try:
            facts = dialect.parse(message["text"] if frame is None else frame)
        except ClientError as error:
            facts = [ClientErred(error)]
        for fact in facts:
            live.feed(fact)
            if isinstance(fact, Started):
                await _send(socket, dialect.hello())


async def _write(
    socket: WebSocket,
    live: LiveSession,
    dialect: NativeDialect,
    metrics: Metrics,
    scope: anyio.CancelScope,
) -> None:
    take = live.outbox.take
    while True:
        event = await take()
        if isinstance(event, TellError):
            metrics.count_error(event.error.code)
        live.write_began = time.monotonic()
        await _send(socket, dialect.render(event, time.time()))
        live.write_began = None
        if isinstance(event, Close):
            await socket.close(event.code)
            return scope.cancel()


async def _send(socket: WebSocket, frame: bytes) -> None:
    await socket.send({"type": "websocket.send", "text": frame.decode()})


async def _close_failed(socket: WebSocket, code: str, metrics: Metrics) -> None:
    """A client that does not read gets a close code, if that."""
    error = ClientError(code, code)
    metrics.count_error(code)
    with anyio.move_on_after(CLOSE_TIMEOUT_S):
        await socket.close(error.close or 1011, code)
