"""Gives uvicorn a WebSocket protocol in Cython (picows) for the paths of audio.

Ten thousand messages a second are too many for ASGI: three times the processor time of picows goes
into tasks and queues that a live session does not need. Serve always starts uvicorn with
`ws="auto"`, so the protocol is replaced where "auto" looks it up. Every other path stays ASGI.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import uvicorn.protocols.websockets.auto as uvicorn_auto
from picows import WSUpgradeRequest, WSUpgradeResponseWithListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

READ_BUFFER_BYTES = 8 << 10
"""Per connection and for its life; grows when a message needs more."""

HANDSHAKE_TIMEOUT_S = 10.0
PING_AFTER_S = PONG_WITHIN_S = 20.0

Accept = Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener]
"""Answers a handshake: a listener, or a refusal as plain HTTP."""


class Route(NamedTuple):
    accept: Accept
    max_message_bytes: int


log = logging.getLogger("voxray.upgrade")
log.setLevel(logging.CRITICAL)  # picows would log frames' errors and addresses


class Upgrade(asyncio.Protocol):
    """uvicorn's WebSocket protocol: hands the connection to the protocol of its path."""

    def __init__(
        self, routes: Mapping[str, Route], is_draining: Callable[[], bool], **uvicorn: Any
    ) -> None:
        self._routes = routes
        self._is_draining = is_draining
        self._uvicorn = uvicorn
        self._transport: Any = None  # uvloop's transports are not asyncio's
        self._inner: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """The request's head, rebuilt by uvicorn; later only what overtakes the hand-over."""
        if self._inner is None:
            self._inner = self._choose(data)
            self._inner.connection_made(self._transport)
            # uvicorn sets us as the transport's protocol once we return
            asyncio.get_running_loop().call_soon(self._transport.set_protocol, self._inner)
        _feed(self._inner, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def eof_received(self) -> None:
        return None

    def _choose(self, head: bytes) -> Any:
        path = head.split(b" ", 2)[1].split(b"?", 1)[0].decode("latin-1")
        route = self._routes.get(path)
        if route is None:
            return AsgiWebSocket(self._is_draining, **self._uvicorn)
        return picows_protocol(route)


class AsgiWebSocket(WebSocketsSansIOProtocol):
    """Uvicorn's own; it stays open while the replica drains, although Serve makes uvicorn exit
    soon after the begin."""

    def __init__(self, is_draining: Callable[[], bool], **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._is_draining = is_draining

    def shutdown(self) -> None:
        if not self._is_draining():
            super().shutdown()


def picows_protocol(route: Route) -> Any:
    """A server's side of one connection, in picows' own order of arguments."""
    return WSProtocol(
        None,
        None,
        False,
        route.accept,
        log,
        True,
        HANDSHAKE_TIMEOUT_S,
        True,
        PING_AFTER_S,
        PONG_WITHIN_S,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # pings are answered by `Socket`, which knows whether the client reads
        route.max_message_bytes,
        None,
        READ_BUFFER_BYTES,
    )


def _feed(protocol: Any, data: bytes) -> None:
    if not hasattr(protocol, "buffer_updated"):
        protocol.data_received(data)
        return
    while data:
        buffer = protocol.get_buffer(len(data))
        taken = min(len(buffer), len(data))
        buffer[:taken] = data[:taken]
        protocol.buffer_updated(taken)
        data = data[taken:]


def install(routes: Mapping[str, Route], is_draining: Callable[[], bool]) -> None:
    """From now on, every uvicorn in this process upgrades these paths with picows."""

    def upgrade(**uvicorn: Any) -> Upgrade:
        return Upgrade(routes, is_draining, **uvicorn)

    uvicorn_auto.AutoWebSocketsProtocol = upgrade
