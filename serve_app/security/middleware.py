"""What every HTTP request passes first: an id, and bounds on what a stranger may send.

A client secret opens realtime sessions and nothing else; a JSON body is read whole, within bounds
of size and time, before any route sees it, so that a slow or huge one occupies its socket only.
"""

import asyncio
import re
import uuid

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.config import Limits
from serve_app.errors import ClientError
from serve_app.observability.metrics import Metrics
from serve_app.security.client_secret import PREFIX

BODY_TIMEOUT_S = 30.0
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
UPLOADS = (
    "/v1/jobs",
    "/v1/transcribe",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/api/upload",
    "/api/transcribe/upload",
    "/transcribe/file",
    "/transcribe/stream",
)
"""Routes with a bound of their own, for their bodies are files."""


class RequestMiddleware:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        answer = _with_id(send, headers.get("x-request-id"))
        try:
            _check_key(headers, scope["path"])
            if scope["method"] in ("POST", "PUT", "PATCH") and scope["path"] not in UPLOADS:
                receive = await self._read(headers, receive)
        except ClientError as error:
            self._metrics.count_error(error.code)
            refused = JSONResponse(error.body(), error.status, {"Connection": "close"})
            return await refused(scope, receive, answer)
        await self._app(scope, receive, answer)

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """The body at once. Raises `ClientError`."""
        bound = self._limits.max_json_bytes
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > bound:
            raise _too_large(bound)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > bound:
                        raise _too_large(bound)
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise ClientError(
                "idle_timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
            ) from error
        return _again(bytes(body), receive)


def _too_large(bound: int) -> ClientError:
    return ClientError("message_too_large", f"the body is larger than {bound} bytes")


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then whatever else comes: that the client has gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _check_key(headers: Headers, path: str) -> None:
    key = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if key.startswith(PREFIX) and path != "/v1/realtime":
        raise ClientError("invalid_api_key", "a client secret opens /v1/realtime and nothing else")


def _with_id(send: Send, given: str | None) -> Send:
    """The client's own id, if it is one, else a new one."""
    id_ = given if given and REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-request-id"] = id_
        await send(message)

    return answer
