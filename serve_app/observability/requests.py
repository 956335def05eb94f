"""Counts every HTTP request by its answer, and times it: the outermost ASGI middleware."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.observability.metrics import Metrics

UNROUTED = "none"
"""The route of a request without one. The path cannot be the label, because clients choose it and
the number of labels must be small."""

ABORTED = "aborted"


class CountRequests:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), ABORTED

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            if status == ABORTED:
                status = "500"  # an outer middleware answers it
            raise
        finally:
            route = _route(scope)
            self._metrics.count_request(scope["method"], route, status)
            if status != ABORTED:
                self._metrics.time_request(route, time.monotonic() - began)


def _route(scope: Scope) -> str:
    """The path of the route, with its parameters as such."""
    return str(getattr(scope.get("route"), "path", None) or scope.get("root_path") or UNROUTED)
