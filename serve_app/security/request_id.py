"""Middleware: every answer has an `x-request-id`, the client's own if it is valid."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIds:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id")
        await self._app(scope, receive, _with_id(send, given))


def _with_id(send: Send, given: str | None) -> Send:
    id_ = given if given and REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-request-id"] = id_
        await send(message)

    return answer
