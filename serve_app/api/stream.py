"""`WS /v1/transcribe/stream`: a socket in front of a live session.

Without tasks: a frame that comes in is parsed and fed to the session at once, an event is
rendered and written at once. While the client does not read, events wait in the `Backlog`.
"""

import asyncio
import json
import time
import uuid
from typing import Any

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from serve_app.api.errors import retry_headers
from serve_app.backlog import Backlog
from serve_app.dialects.native import NativeDialect
from serve_app.errors import CODES, ClientError
from serve_app.live import LiveSession, LiveSessions
from serve_app.metrics import Metrics
from serve_app.session import ClientErred, Close, Event, Fact, Started, TellError, TellFailed, TellInner
from serve_app.upgrade import MAX_MESSAGE_BYTES, Accept

PATH = "/v1/transcribe/stream"

GOODBYE_S = 5.0

WRITE_HIGH_BYTES = 64 << 10
"""Unsent bytes at which a client counts as not reading."""


def accept(models: Any, sessions: LiveSessions, metrics: Metrics) -> Accept:
    """Answers handshakes: a session each, or 503 with Retry-After."""

    def answer(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        metrics.count_request()
        try:
            sessions.admit()
        except ClientError as refusal:
            metrics.count_error(refusal.code)
            return _refusal(refusal)
        dialect = NativeDialect(sessions.limits, uuid.uuid4().hex, models.engine, models.languages)
        response = WSUpgradeResponse.create_101_response()
        return WSUpgradeResponseWithListener(response, Stream(sessions, dialect, metrics))

    return answer


def _refusal(refusal: ClientError) -> WSUpgradeResponseWithListener:
    headers = {"Content-Type": "application/json", **retry_headers(refusal)}
    response = WSUpgradeResponse.create_error_response(
        refusal.status, json.dumps(refusal.body()).encode(), headers
    )
    return WSUpgradeResponseWithListener(response, None)


class Stream(WSListener):
    """One connection."""

    __slots__ = (
        "_backlog",
        "_dialect",
        "_fragments",
        "_live",
        "_metrics",
        "_paused",
        "_sessions",
        "_transport",
    )

    def __init__(self, sessions: LiveSessions, dialect: NativeDialect, metrics: Metrics) -> None:
        self._sessions = sessions
        self._dialect = dialect
        self._metrics = metrics
        self._live: LiveSession | None = None
        self._transport: WSTransport | None = None
        self._paused = False
        self._fragments: list[bytes] = []
        self._backlog = Backlog(sessions.limits.max_unsent_events)

    # The connection.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        self._send(self._dialect.hello())
        try:
            self._live = self._sessions.open(self._on_event, self._end)
        except ClientError as refusal:  # admitted at the handshake, but others were faster
            return self._end(refusal.code)
        self._metrics.active_connections += 1

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._live:
            self._metrics.active_connections -= 1
            self._metrics.dropped_partials += self._backlog.dropped
            self._sessions.close(self._live)
            self._live = None

    def pause_writing(self) -> None:
        self._paused = True
        if self._live:
            self._live.unread_since = time.monotonic()

    def resume_writing(self) -> None:
        self._paused = False
        if self._live:
            self._live.unread_since = None
        while self._backlog and not self._paused:
            self._write(self._backlog.take())

    # Frames in.

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self._break(WSCloseCode.PROTOCOL_ERROR)
        if kind == WSMsgType.CLOSE:
            return self._on_close(transport, frame)
        if kind == WSMsgType.PONG:
            return
        if kind == WSMsgType.CONTINUATION or not frame.fin or self._fragments:
            return self._on_fragment(frame)
        payload = frame.get_payload_as_bytes()
        self._on_message(payload if kind == WSMsgType.BINARY else self._text(payload))

    def _on_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if not transport.is_close_frame_sent:
            transport.send_close(frame.get_close_code() or WSCloseCode.OK)
        transport.disconnect()

    def _on_fragment(self, frame: WSFrame) -> None:
        """RFC 6455 5.4: a first frame of a type, then continuations, the last one final."""
        begins = frame.msg_type != WSMsgType.CONTINUATION
        if begins == bool(self._fragments):
            return self._break(WSCloseCode.PROTOCOL_ERROR)
        if begins:
            self._fragments = [b"T" if frame.msg_type == WSMsgType.TEXT else b"B"]
        self._fragments.append(frame.get_payload_as_bytes())
        if sum(map(len, self._fragments)) > MAX_MESSAGE_BYTES:
            return self._break(WSCloseCode.MESSAGE_TOO_BIG)
        if frame.fin:
            kind, *parts = self._fragments
            self._fragments = []
            payload = b"".join(parts)
            self._on_message(payload if kind == b"B" else self._text(payload))

    def _text(self, payload: bytes) -> str | None:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            self._break(WSCloseCode.INVALID_TEXT)
            return None

    def _on_message(self, message: str | bytes | None) -> None:
        live = self._live
        if live is None or message is None:
            return
        try:
            facts: list[Fact] = self._dialect.parse(message)
        except ClientError as error:
            facts = [ClientErred(error)]
        for fact in facts:
            live.feed(fact)
            if isinstance(fact, Started):
                self._send(self._dialect.hello())

    # Events out.

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TellInner):
            return
        if isinstance(event, TellError | TellFailed):
            self._metrics.count_error(event.error.code)
        if self._paused:
            self._backlog.put(event)
        else:
            self._write(event)

    def _write(self, event: Event) -> None:
        self._send(self._dialect.render(event, round(time.time(), 3)))
        if isinstance(event, Close):
            self._finish(event.code)

    def _send(self, frame: bytes) -> None:
        if self._transport and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.TEXT, frame)

    # The end.

    def _finish(self, code: int) -> None:
        """After `closed`; the client has some seconds to say goodbye too."""
        transport = self._transport
        if transport and not transport.is_close_frame_sent:
            transport.send_close(WSCloseCode(code))
            asyncio.get_running_loop().call_later(GOODBYE_S, transport.disconnect, False)

    def _break(self, code: WSCloseCode) -> None:
        """The client does not speak WebSocket."""
        if self._transport:
            self._transport.send_close(code)
            self._transport.disconnect()

    def _end(self, code: str) -> None:
        """End without a session's goodbye: the client does not read, or voxray failed."""
        self._metrics.count_error(code)
        transport = self._transport
        if transport and not transport.is_disconnected:
            transport.send_close(WSCloseCode(CODES[code].close or 1011), code.encode())
            transport.disconnect(graceful=not self._paused)
