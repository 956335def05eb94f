"""The gate in front of every request: ASGI middleware, before a body is read.

Whom the gate lets in stands in the scope, where `caller_of` finds it. An answer that is a stream of
events ends when its key is revoked or its token expires; a shorter one is still given.
"""

import time
from collections.abc import Collection, MutableMapping

import anyio
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from serve_app.api.errors import error_headers
from serve_app.api.streamed import EVENT_STREAM, event
from serve_app.errors import ClientError, key_revoked
from serve_app.identity.client_address import client_address
from serve_app.identity.gate import Arrival, Gate
from serve_app.identity.principal import Principal
from serve_app.identity.routes import Access, access_to
from serve_app.observability.audit import acting
from serve_app.observability.ids import belonging
from serve_app.observability.metrics import Metrics

PROBES = ("/v1/health", "/v1/ready")
"""Tell nothing, and load balancers ask them by any name."""


def arrival(scope: Scope) -> Arrival:
    """A request or handshake, for the gate."""
    peer = (scope.get("client") or ("",))[0]
    query, method = scope["query_string"].decode("latin-1"), scope.get("method", "GET")
    return Arrival(Headers(scope=scope), query, peer, method=method)


class GateMiddleware:
    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._streams: dict[anyio.CancelScope, str] = {}
        """Running streams, with their keys."""
        gate.follow_revoked(self._end_streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in PROBES:
            return await self._app(scope, receive, send)
        came = arrival(scope)
        try:
            caller = await self._caller(access_to(scope["path"]), came)
        except ClientError as error:
            return await self._refuse(error, scope, receive, send)
        if caller is None:
            return await self._app(scope, receive, send)
        scope["caller"] = caller
        address = client_address(came.headers, came.peer)
        with belonging(tenant=caller.tenant), acting(caller.key, address):
            await self._answered(caller, scope, receive, send)

    async def _caller(self, access: Access, came: Arrival) -> Principal | None:
        """None for a path that is open to all, and for one that takes the key later. Raises
        `ClientError`."""
        if access.public or (access.in_band and not self._gate.shows_key(came)):
            self._gate.visited(came)
            return None
        return await self._gate.admitted(access, came)

    async def _answered(
        self, caller: Principal, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if not caller.key:
            return await self._app(scope, receive, send)
        with anyio.CancelScope() as cut:

            async def answer(message: Message) -> None:
                if _begins_stream(message):
                    self._streams[cut] = caller.key
                    if caller.expires is not None:
                        cut.deadline = anyio.current_time() + caller.expires - time.time()
                await send(message)

            try:
                await self._app(scope, receive, answer)
            finally:
                self._streams.pop(cut, None)
        if cut.cancelled_caught:
            await self._say_revoked(send)

    async def _say_revoked(self, send: Send) -> None:
        error = key_revoked()
        self._metrics.count_error(error.code)
        await send({"type": "http.response.body", "body": event(error.body())})

    def _end_streams(self, keys: Collection[str]) -> None:
        for cut, key in list(self._streams.items()):
            if key in keys:
                cut.cancel()

    async def _refuse(self, error: ClientError, scope: Scope, receive: Receive, send: Send) -> None:
        """The body, if there is one, is not read."""
        self._metrics.count_error(error.code)
        headers = {**error_headers(error), "Connection": "close"}
        answer = JSONResponse(error.body(), error.status, headers)
        if scope["type"] == "websocket":
            return await WebSocket(scope, receive, send).send_denial_response(answer)
        await answer(scope, receive, send)


def _begins_stream(message: MutableMapping[str, object]) -> bool:
    if message["type"] != "http.response.start":
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith(EVENT_STREAM)  # type: ignore[arg-type]
