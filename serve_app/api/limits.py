"""Counts each HTTP request against the limits of its caller, and tells what is left of them.

What every caller may ask without a key is not counted, nor are the requests that Socket.IO makes
for one connection, and sessions, which are counted as such.
"""

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.errors import error_headers
from serve_app.errors import ClientError
from serve_app.identity.principal import Principal
from serve_app.limits.limiter import Limiter
from serve_app.observability.metrics import Metrics


class LimitsMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limiter: Limiter, metrics: Metrics, free: str) -> None:
        """`free`: the path below which nothing is counted."""
        self._app = app
        self._limiter = limiter
        self._metrics = metrics
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._counted(scope)
        if caller is None:
            return await self._app(scope, receive, send)
        try:
            await self._limiter.requested(caller)
        except ClientError as error:
            self._metrics.count_error(error.code)
            headers = {**error_headers(error), "Connection": "close"}
            return await JSONResponse(error.body(), error.status, headers)(scope, receive, send)
        await self._app(scope, receive, self._telling(send, caller))

    def _counted(self, scope: Scope) -> Principal | None:
        """Who has limits, and sends what is counted."""
        caller: Principal | None = scope.get("caller")
        if scope["type"] != "http" or caller is None or scope["path"].startswith(self._free):
            return None
        return caller if self._limiter.limits(caller) else None

    def _telling(self, send: Send, caller: Principal) -> Send:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._limiter.headers(caller))
            await send(message)

        return answer
