"""The drain of an ingress replica: it takes no new work, and what is open may end.

It begins when Serve ends the replica (a scale-down, an update) or `voxray run` gets a signal.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.errors import error_headers
from serve_app.errors import server_restarting
from serve_app.observability.metrics import Metrics


class Drain:
    """Whether a replica drains, until when, and the requests that are in progress."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.requests = 0
        self._answered = asyncio.Event()

    def begin(self) -> None:
        self.begun.set()

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request, from its head to the end of its answer."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._answered.set()

    async def all_answered(self, within_s: float) -> None:
        """Returns when no request is in progress, or after `within_s`."""
        with anyio.move_on_after(within_s):
            while self.requests:
                self._answered.clear()
                await self._answered.wait()


class DrainGate:
    """ASGI middleware: counts requests; refuses new work during a drain. What only asks, and what
    belongs to an open Socket.IO connection, goes through."""

    def __init__(self, app: ASGIApp, drain: Drain, metrics: Metrics, open_paths: str) -> None:
        self._app = app
        self._drain = drain
        self._metrics = metrics
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if self._drain.begun.is_set() and self._is_work(scope):
            return await self._refused(scope, receive, send)
        with self._drain.request():
            await self._app(scope, receive, send)

    def _is_work(self, scope: Scope) -> bool:
        return scope.get("method") == "POST" and not scope["path"].startswith(self._open_paths)

    async def _refused(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = server_restarting()
        self._metrics.count_error(error.code)
        headers = {**error_headers(error), "Connection": "close"}
        await JSONResponse(error.body(), error.status, headers)(scope, receive, send)
