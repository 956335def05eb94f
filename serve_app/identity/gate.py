"""Asks every request and handshake who it is, before anything is done for it."""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Asgi

from serve_app.identity.principal import EVERYBODY, Principal, Scope


class Gate:
    """The same for every protocol."""

    def caller(self, headers: Mapping[str, str], scope: Scope) -> Principal:
        """Who sends these headers. There are no keys yet: everybody is one tenant."""
        return EVERYBODY


class GateMiddleware:
    """ASGI middleware: puts the caller into the scope, where `caller_of` finds it."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["caller"] = self._gate.caller(Headers(scope=scope), Scope.TRANSCRIBE)
        await self._app(scope, receive, send)
