"""HEAD and OPTIONS for every path, and what `Allow` says of it."""

from fastapi import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed(request: Request) -> str:
    """The methods of the request's path, as `Allow` lists them."""
    found = [method for method in METHODS if _takes(request, method)]
    head = ["HEAD"] if "GET" in found else []
    return ", ".join([*found, *head, "OPTIONS"])


def _takes(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


class _Enough(Exception):
    """The head of the answer is out."""


class HeadRequests:
    """ASGI middleware: HEAD is GET without the body, however long that would go on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def head_only(message: Message) -> None:
            if message["type"] != "http.response.body":
                return await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _Enough

        try:
            await self._app({**scope, "method": "GET"}, receive, head_only)
        except _Enough:
            pass
