"""Middleware for every HTTP request: bounds on the body.

A JSON body is read completely, within bounds of size and time, before any route gets it, so that a
slow or huge one occupies only its socket.
"""

import contextlib

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.config import JobsConfig, Limits
from serve_app.errors import ClientError
from serve_app.observability.metrics import Metrics
from serve_app.security.bodies import Body, bounds_of_json, bounds_of_uploads, declared_bytes, whole
from serve_app.security.json_bounds import check_json

PARTS = "/v1/uploads/"
"""Below it are uploads that arrive in parts."""

LIVE = "/transcribe/stream"
"""Its body is a live session, which has other limits."""


class RequestMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits, jobs: JobsConfig, metrics: Metrics) -> None:
        self._app = app
        self._json = bounds_of_json(limits)
        self._uploads = bounds_of_uploads(limits, jobs)
        self._parts = self._uploads["/v1/jobs"]
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        with contextlib.suppress(ClientDisconnect):  # nobody is left to be answered
            await self._answered(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            if scope["method"] in ("POST", "PUT", "PATCH") and scope["path"] != LIVE:
                receive = await self._bounded(scope["path"], headers, receive)
        except ClientError as error:
            self._metrics.count_error(error.code)
            refused = JSONResponse(error.body(), error.status, {"Connection": "close"})
            return await refused(scope, receive, send)
        await self._app(scope, receive, send)

    async def _bounded(self, path: str, headers: Headers, receive: Receive) -> Receive:
        """An upload as it arrives; any other body read completely. Raises `ClientError`."""
        streamed = self._parts if path.startswith(PARTS) else self._uploads.get(path)
        bounds = streamed or self._json
        bounds.check(declared_bytes(headers))
        body = Body(receive, bounds)
        if streamed:
            return body
        read = await whole(body)
        check_json(read)
        return _again(read, receive)


def _again(body: bytes, receive: Receive) -> Receive:
    """Replay the body that was read, then receive the disconnect."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
