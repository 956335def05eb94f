"""Asks every request and handshake who it is, before anything is done for it."""

import socket
import time
from collections.abc import Mapping

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Asgi

from serve_app.config import BrowserConfig
from serve_app.errors import ClientError
from serve_app.identity.origins import KnownOrigins
from serve_app.identity.principal import EVERYBODY, Principal, Scope
from serve_app.observability.metrics import Metrics
from serve_app.security import client_secret
from serve_app.security.signing import SigningKeys

KEY_SUBPROTOCOL = "openai-insecure-api-key."
PROBES = ("/v1/health", "/v1/ready")
"""Tell nothing, and load balancers ask them by any name."""


def known_origins(config: BrowserConfig, requires_keys: bool = False) -> KnownOrigins:
    """With the names of this machine."""
    machine = socket.gethostname()
    any_host = requires_keys and not config.hosts
    return KnownOrigins(config.origins, [*config.hosts, machine, f"{machine}.local"], any_host)


class Gate:
    """The same for every protocol."""

    def __init__(self, known: KnownOrigins, keys: SigningKeys) -> None:
        self._known = known
        self._keys = keys

    def caller(self, headers: Mapping[str, str], scope: Scope) -> Principal:
        """Who sends these headers. There are no keys yet: everybody is one tenant.

        Raises `ClientError` for a page of a foreign origin that shows no credential of this server.
        """
        if not self._shows_secret(headers):
            self._known.check(headers)
        return EVERYBODY

    def _shows_secret(self, headers: Mapping[str, str]) -> bool:
        """Raises `ClientError` if it is not valid."""
        for protocol in (headers.get("Sec-WebSocket-Protocol") or "").split(","):
            key = protocol.strip().removeprefix(KEY_SUBPROTOCOL)
            if key.startswith(client_secret.PREFIX):
                client_secret.opened(self._keys, key, time.time())
                return True
        return False


class GateMiddleware:
    """ASGI middleware: puts the caller into the scope, where `caller_of` finds it."""

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"] not in PROBES:
            try:
                scope["caller"] = self._gate.caller(Headers(scope=scope), Scope.TRANSCRIBE)
            except ClientError as error:
                self._metrics.count_error(error.code)
                refusal = JSONResponse(error.body(), error.status, {"Connection": "close"})
                return await refusal(scope, receive, send)
        await self._app(scope, receive, send)
