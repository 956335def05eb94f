"""A WebSocket without ASGI and without tasks: RFC 6455 down to whole messages, and back.

A subclass decides what a message means, and what happens while the client does not read.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
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

from serve_app.api.errors import error_headers
from serve_app.errors import CODES, ClientError
from serve_app.identity.credentials import subprotocols
from serve_app.live.backlog import ReaderTooSlow
from serve_app.observability.metrics import Metrics
from serve_app.observability.origin import Origin
from serve_app.security.answer_headers import ALWAYS

log = logging.getLogger("voxray.socket")

SUBPROTOCOL = "voxray"
"""Of our own protocols. A browser that sends a key as a subprotocol needs another one that the
server selects."""

PACE = "pace"
CLOSE_TIMEOUT_S = 5.0
LINGER_S = 0.5

WRITE_HIGH_BYTES = 64 << 10
"""Unsent bytes at which a client counts as not reading."""

MAX_FRAGMENTS = 1024
"""Frames of one message; each costs memory, even an empty one."""

FRAMES_PER_S = 500
FRAMES_AT_ONCE = 2000
"""A client's frames: past these its socket is read more slowly. Audio comes at 10 to 100 a second;
a flood of small frames would hold up every other session."""

CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""Codes that an endpoint may put into a close frame (RFC 6455 7.4)."""


def refusal(error: ClientError, metrics: Metrics) -> WSUpgradeResponseWithListener:
    """A handshake refused, as plain HTTP."""
    metrics.count_error(error.code)
    headers = {"Content-Type": "application/json", **ALWAYS, **error_headers(error)}
    body = json.dumps(error.body()).encode()
    response = WSUpgradeResponse.create_error_response(error.status, body, headers)
    return WSUpgradeResponseWithListener(response, None)


def welcome(
    socket: "Socket", headers: Mapping[str, str] | None = None
) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), socket)


def agreed(request: WSUpgradeRequest, ours: str) -> dict[str, str]:
    """The header that selects our subprotocol, if the client offers it; a key never comes back."""
    offered = subprotocols(request.headers.items())
    return {"Sec-WebSocket-Protocol": ours} if ours in offered else {}


def close_answer(payload: bytes) -> int:
    """The code that answers a close frame: the client's own, or 1002 where it may not send that."""
    if not payload:
        return 1000
    code = int.from_bytes(payload[:2])
    return code if code in CLOSE_CODES else 1002


class Socket(WSListener):
    """One connection."""

    __slots__ = (
        "_admitted",
        "_credit",
        "_credited_at",
        "_fragment_bytes",
        "_fragments",
        "_holds",
        "_max_message_bytes",
        "_metrics",
        "_origin",
        "_paused",
        "_transport",
    )

    def __init__(self, metrics: Metrics, max_message_bytes: int, origin: Origin) -> None:
        self._metrics = metrics
        self._origin = origin
        self._max_message_bytes = max_message_bytes
        self._transport: WSTransport | None = None
        self._admitted = self._paused = False
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._credit = float(FRAMES_AT_ONCE)
        """Frames that may come at once."""
        self._credited_at = time.monotonic()
        self._holds: set[str] = set()
        """Why the socket is not read, if it is not."""

    # For a subclass.

    def opened(self) -> None:
        """The client has connected. Raises `ClientError` to refuse it."""

    def closed(self) -> None:
        """The client, which `opened` accepted, has disconnected."""

    def received(self, message: str | bytes) -> None:
        """A whole message, text or binary."""

    def unread(self, is_unread: bool) -> None:
        """The client has stopped reading, or reads again."""

    # The connection.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        try:
            self.opened()
        except (
            ClientError
        ) as refused:  # the last free session went to another client after the handshake
            return self.end(refused.code)
        self._admitted = True
        self._metrics.active_connections += 1

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._admitted:
            self._metrics.active_connections -= 1
            self.closed()

    def pause_writing(self) -> None:
        self._paused = True
        self.unread(True)

    def resume_writing(self) -> None:
        self._paused = False
        self.unread(False)

    # What is read.

    def hold(self, why: str) -> None:
        """Read no more of the client until `release`."""
        if self._transport and not self._transport.is_disconnected:
            self._holds.add(why)
            self._transport.underlying_transport.pause_reading()

    def release(self, why: str) -> None:
        held = why in self._holds
        self._holds.discard(why)
        if held and not self._holds and self._transport and not self._transport.is_disconnected:
            self._transport.underlying_transport.resume_reading()

    def _pace(self) -> None:
        """More frames came than may at once: earn what they cost before more is read.

        Ends a connection that has as many again in its buffer, where reading less stops nothing.
        """
        now = time.monotonic()
        earned = (now - self._credited_at) * FRAMES_PER_S
        self._credit, self._credited_at = min(FRAMES_AT_ONCE, self._credit + earned), now
        if self._credit < -FRAMES_AT_ONCE:
            self._metrics.count_error("too_many_messages")
            self._break(WSCloseCode.POLICY_VIOLATION)
        elif self._credit < 0 and PACE not in self._holds:
            self.hold(PACE)
            wait_s = -self._credit / FRAMES_PER_S
            asyncio.get_running_loop().call_later(wait_s, self.release, PACE)

    # Frames in.

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if transport.is_close_frame_sent and kind != WSMsgType.CLOSE:
            return
        self._credit -= 1
        if self._credit < 0:
            self._pace()
            if transport.is_close_frame_sent:
                return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self._break(WSCloseCode.PROTOCOL_ERROR)
        if kind == WSMsgType.CLOSE:
            return self._on_close(transport, frame)
        if kind == WSMsgType.PONG:
            return
        if kind == WSMsgType.PING:
            return self._on_ping(transport, frame)
        if kind == WSMsgType.CONTINUATION or not frame.fin or self._fragments:
            return self._on_fragment(frame)
        self._on_payload(frame.get_payload_as_bytes(), kind == WSMsgType.TEXT)

    def _on_ping(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answers would pile up for a client that does not read."""
        if not self._paused:
            transport.send_pong(frame.get_payload_as_bytes())

    def _on_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if not transport.is_close_frame_sent:
            code: Any = close_answer(frame.get_payload_as_bytes())  # picows takes any number
            transport.send_close(code)
        transport.disconnect()

    def _on_fragment(self, frame: WSFrame) -> None:
        """RFC 6455 5.4: a first frame of a type, then continuations, the last one final."""
        begins = frame.msg_type != WSMsgType.CONTINUATION
        if begins == bool(self._fragments):
            return self._break(WSCloseCode.PROTOCOL_ERROR)
        if begins:
            self._fragments = [b"T" if frame.msg_type == WSMsgType.TEXT else b"B"]
            self._fragment_bytes = 0
        self._fragments.append(frame.get_payload_as_bytes())
        self._fragment_bytes += len(self._fragments[-1])
        if self._fragment_bytes > self._max_message_bytes or len(self._fragments) > MAX_FRAGMENTS:
            return self._break(WSCloseCode.MESSAGE_TOO_BIG)
        if frame.fin:
            kind, *parts = self._fragments
            self._fragments = []
            self._on_payload(b"".join(parts), kind == b"T")

    def _on_payload(self, payload: bytes, is_text: bool) -> None:
        try:
            message = payload.decode() if is_text else payload
        except UnicodeDecodeError:
            return self._break(WSCloseCode.INVALID_TEXT)
        try:
            self.received(message)
        except ReaderTooSlow:
            self.end("client_too_slow")
        except Exception:  # the outermost edge of a connection
            log.exception("connection_failed", extra=self._origin.ids())
            self.end("internal_error")

    # Frames out.

    def send(self, frame: bytes) -> None:
        if self._transport and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.TEXT, frame)

    # The end.

    def finish(self, code: int, reason: str = "") -> None:
        """Close; the client has some seconds to send its close frame."""
        transport = self._transport
        if transport and not transport.is_close_frame_sent:
            transport.send_close(WSCloseCode(code), reason.encode())
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.disconnect, False)

    def end(self, code: str) -> None:
        """Close without waiting: the client does not read, or voxray failed."""
        self._metrics.count_error(code)
        transport = self._transport
        if transport and not transport.is_disconnected:
            transport.send_close(WSCloseCode(CODES[code].close or 1011), code.encode())
            transport.disconnect(graceful=not self._paused)

    def _break(self, code: WSCloseCode) -> None:
        """The client violates the protocol. Its data is read and dropped for a moment, because a
        connection closed with unread data loses the close frame."""
        for why in list(self._holds):
            self.release(why)
        if self._transport:
            self._transport.send_close(code)
            asyncio.get_running_loop().call_later(LINGER_S, self._transport.disconnect, False)
